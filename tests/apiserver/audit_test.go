// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
)

// request is one of kube-nft's, as the server's audit log tells.
type request struct {
	verb, resource, subresource string
	query                       url.Values
	code                        int
}

// streamed reports whether the request is for a list in the form of a watch
// (KEP-3157).
func (r request) streamed() bool {
	return r.verb == "watch" && r.query.Get("sendInitialEvents") == "true"
}

// lists reports whether the request was for all there is of its resource, and
// successful.
func (r request) lists() bool {
	return r.code == http.StatusOK && (r.verb == "list" || r.streamed())
}

// writeAuditPolicy returns the path of a policy by which the server logs the
// requests of kube-nft when it begins to answer them.
func (s *site) writeAuditPolicy() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "policy.yaml")
	s.Must(os.WriteFile(path, []byte(`apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: [`+user.Name+`]
- level: None
`), 0o644))
	return path
}

// requests returns kube-nft's requests so far, each once.
func (s *site) requests() (all []request) {
	s.t.Helper()
	text, err := os.ReadFile(s.auditLog)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.Must(err)
	seen := make(map[string]bool)
	for line := range bytes.Lines(text) {
		var event struct {
			AuditID, Verb, RequestURI string
			ObjectRef                 struct{ Resource, Subresource string }
			ResponseStatus            struct{ Code int }
		}
		if err := json.Unmarshal(line, &event); err != nil {
			continue // the line is being written
		}
		if seen[event.AuditID] { // a watch is logged when it begins and when it ends
			continue
		}
		seen[event.AuditID] = true
		uri, err := url.Parse(event.RequestURI)
		s.Must(err)
		all = append(all, request{event.Verb, event.ObjectRef.Resource, event.ObjectRef.Subresource, uri.Query(), event.ResponseStatus.Code})
	}
	return all
}

// count returns how many of kube-nft's requests for a resource so far are so.
func (s *site) count(resource string, is func(request) bool) (n int) {
	s.t.Helper()
	for _, r := range s.requests() {
		if r.resource == resource && is(r) {
			n++
		}
	}
	return n
}
