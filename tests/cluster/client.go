// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// StatusError is an answer of the server other than success.
type StatusError struct {
	Code    int    // HTTP status
	Message string // of the Status object
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.Code, http.StatusText(e.Code), e.Message)
}

// Client returns an HTTP client that trusts the server and acts as the user, who
// is nobody if there is no such user.
func (c *Cluster) Client(user string) *http.Client {
	return c.ClientVia(user, c.config.Dial)
}

// ClientVia is Client by another way than Config.Dial, from another network
// namespace say.
func (c *Cluster) ClientVia(user string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return c.tokenClient(c.tokens[user], dial)
}

// TokenClient is Client for whoever has a token, of a service account say.
func (c *Cluster) TokenClient(token string) *http.Client {
	return c.tokenClient(token, c.config.Dial)
}

func (c *Cluster) tokenClient(token string, dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.roots)
	return &http.Client{Transport: bearer{
		token: token,
		next: &http.Transport{
			DialContext:       dial,
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			ForceAttemptHTTP2: true,
		},
	}}
}

// Do sends a request as Admin, with in as JSON unless it is nil, and decodes the
// answer into out unless that is nil. Patches are merge patches. An answer other
// than success is a *StatusError.
func (c *Cluster) Do(ctx context.Context, method, path string, in, out any) error {
	return Do(ctx, c.client, method, c.URL+path, in, out)
}

// Do is Cluster.Do with a client of the caller's choice.
func Do(ctx context.Context, client *http.Client, method, url string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/merge-patch+json")
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, url, err)
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return fmt.Errorf("%s %s: %w", method, url, &StatusError{Code: response.StatusCode, Message: message(text)})
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: decode answer: %w", method, url, err)
	}
	return nil
}

// message returns what the body of an unsuccessful answer says.
func message(body []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(body, &status) == nil && status.Message != "" {
		return status.Message
	}
	return string(bytes.TrimSpace(body))
}

// bearer adds a token to requests.
type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	if b.token != "" {
		request.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(request)
}
