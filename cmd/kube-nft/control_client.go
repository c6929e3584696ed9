// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxAnswer bounds what is read of an answer: a Service of 10,000 endpoints takes some
// megabytes.
const maxAnswer = 64 << 20

// errNotRunning says that there is no kube-nft to ask.
var errNotRunning = errors.New("no kube-nft runs in this network namespace")

// errNobody says that there is nothing of the kind that was asked for.
var errNobody = errors.New("not found")

// askRunning asks the running kube-nft of this network namespace, and reads its answer
// into out. The error is errNotRunning if there is none.
func askRunning(ctx context.Context, path string, out any) error {
	client := http.Client{Transport: &http.Transport{DialContext: dialRunning}, Timeout: askWithin + time.Second}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://kube-nft"+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return errNotRunning
	case errors.Is(err, errStranger):
		return errStranger
	case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF):
		return fmt.Errorf("the running kube-nft answers root and its own user alone: run as root: %w", unix.EPERM)
	case err != nil:
		return fmt.Errorf("ask the running kube-nft: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask the running kube-nft: %w", err)
	}
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return fmt.Errorf("%w: %s", errNobody, strings.TrimSpace(string(body)))
	default:
		return fmt.Errorf("the running kube-nft cannot answer now: %s", strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("the answer of the running kube-nft: %w", err)
	}
	return nil
}

// errStranger says that what has the socket's name is not to be believed.
var errStranger = errors.New("the control socket's name belongs to another user, so the running kube-nft cannot be asked: end that process, ss -xlp shows it")

// dialRunning connects to the running kube-nft, and to nobody who pretends to be it.
func dialRunning(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", controlName)
	if err != nil {
		return nil, err
	}
	if who, err := credentials(conn); err != nil || !trusted(int(who.Uid)) && !mayChange(int(who.Pid)) {
		conn.Close()
		return nil, errors.Join(errStranger, err)
	}
	return conn, nil
}

// askStatus asks the running kube-nft how it is, if it answers at once.
func askStatus(ctx context.Context) (s statusAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return s, askRunning(ctx, "/v1/status", &s)
}
