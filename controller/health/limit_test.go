// SPDX-License-Identifier: Apache-2.0

package health

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestLimit: connections that say nothing, or little at a time, push out each other, and
// a request among them is answered.
func TestLimit(t *testing.T) {
	const most = 8
	l := NewLimit(most)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "well") }))
	server.Config.ConnState = l.ConnState
	server.Start()
	defer server.Close()
	at := server.Listener.Addr().String()
	var silent []net.Conn
	for range 5 * most {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: ")
		silent = append(silent, c)
		answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(server.URL)
		if err != nil {
			t.Fatalf("beside %d that say nothing: %v", len(silent), err)
		}
		answer.Body.Close()
	}
	for i, c := range silent[:len(silent)-most] {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("connection %d of %d is still open: %v", i, len(silent), err)
		}
	}
	err := netlab.Poll(5*time.Second, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.open) > most || l.idle.Len() != len(l.open) {
			return fmt.Errorf("%d connections, %d of them idle, want %d at most", len(l.open), l.idle.Len(), most)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestLimitAnswering: who is being answered is left alone, and the newcomer goes.
func TestLimitAnswering(t *testing.T) {
	l := NewLimit(1)
	answering, newcomer := &closed{}, &closed{}
	l.ConnState(answering, http.StateNew)
	l.ConnState(answering, http.StateActive)
	l.ConnState(newcomer, http.StateNew)
	if answering.done || !newcomer.done {
		t.Errorf("closed: %v, %v, want the newcomer", answering.done, newcomer.done)
	}
	l.ConnState(newcomer, http.StateClosed)
	l.ConnState(answering, http.StateIdle)
	l.ConnState(&closed{}, http.StateNew)
	if !answering.done {
		t.Error("the one that is idle was not closed")
	}
}

// closed is a connection that notes whether it was closed.
type closed struct {
	net.Conn
	done bool
}

func (c *closed) Close() error { c.done = true; return nil }
