// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/controller/health"
)

// listenAgain is how often an address that is taken is tried, as in kube-proxy
// unless it is told to fail (bindAddressHardFail).
const listenAgain = 5 * time.Second

// requestTime bounds what a reader may take to ask. Profiles take as long as they are
// asked to: net/http/pprof moves the end of its answers.
const requestTime = 10 * time.Second

// maxConnections bounds what readers cost together: each connection is some kilobytes.
const maxConnections = 256

// server serves HTTP at an address of the configuration.
type server struct {
	what    string // that is served, in words
	setting string // that names the address
	address string
	handler http.Handler
	names   []string // that go to a loopback address beside localhost; see onlyByName
	log     *slog.Logger
	hard    bool              // give up if the address cannot be had
	again   time.Duration     // between attempts to listen
	failed  func(note string) // is told once of an address that cannot be had; nil is nobody
}

// run serves until ctx ends. Where it cannot listen it goes on trying, because nothing
// else depends on it, or returns why.
func (s *server) run(ctx context.Context) error {
	failing := false
	for ctx.Err() == nil {
		err := listen(ctx, s.address, onlyByName(s.handler, s.address, s.names), func() {
			failing = false
			s.log.Info("serving "+s.what, "address", s.address)
		})
		if err != nil && !failing {
			failing = true
			s.refused(err)
		}
		if err != nil && s.hard {
			return fmt.Errorf("cannot serve %s, and is not to go on without (bindAddressHardFail): %w", s.what, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.again):
		}
	}
	return nil
}

func (s *server) refused(err error) {
	if s.failed != nil {
		s.failed(err.Error())
	}
	if !s.hard {
		s.log.Warn("cannot serve "+s.what+", all else goes on; will try again", "err", err, "every", s.again,
			"mend", "free the address, or give another one with "+s.setting)
	}
}

// listen serves HTTP until ctx ends, and says when it has begun.
func listen(ctx context.Context, address string, handler http.Handler, begun func()) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	begun()
	return serveOn(ctx, listener, handler)
}

// serveOn serves HTTP to who connects to a listener until ctx ends, and closes it.
func serveOn(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: requestTime,
		ReadTimeout:       2 * requestTime,
		WriteTimeout:      3 * requestTime,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnState:         health.NewLimit(maxConnections).ConnState,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, 0), // of clients that misbehave
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// onlyByName refuses requests at a loopback address that ask for another host: a page of
// that name which a browser on this machine has open, and which has had its name lead to
// 127.0.0.1 (DNS rebinding; etcd's CVE-2018-1099). Addresses, localhost and names are
// fine. What listens for the network is for whoever reaches it, by any name that leads
// here, but for the status page: browsers read that, and reach networks that pages do not.
func onlyByName(handler http.Handler, address string, names []string) http.Handler {
	at, err := netip.ParseAddrPort(address)
	loopback := err == nil && at.Addr().IsLoopback()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/page/") || strings.HasPrefix(r.URL.Path, "/api/")
		if (loopback || page) && !ours(r.Host, names) {
			http.Error(w, "this is not that host: ask for an address, localhost, or the node's name", http.StatusMisdirectedRequest)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// ours reports whether a Host header leads to this machine whoever answers for names.
// HTTP/1.0 has none.
func ours(host string, names []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true
	}
	return host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(names, host)
}
