// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// Main runs the tests of a package in namespaces of their own; TestMain calls
// it and does nothing else. It does not return. Where isolation is impossible it
// says why and runs no test at all, since tests could reach the machine's
// network by other ways than a Lab; if CI is set in the environment that is
// a failure. Fuzz targets run, but not in a lab.
func Main(m *testing.M) {
	// The workers of "go test -fuzz" are processes of an isolated one. They talk
	// to it through descriptors that a second isolation would lose.
	if Isolated() || slices.Contains(os.Args[1:], "-test.fuzzworker") {
		os.Exit(m.Run())
	}
	code, err := Isolate(os.Args)
	if err != nil {
		GiveUp(fmt.Errorf("netlab: %w", err))
	}
	os.Exit(code)
}

// GiveUp ends the process because no test can run, and says why. That is a failure
// in CI.
func GiveUp(err error) {
	verdict, code := "SKIP", 0
	if os.Getenv("CI") != "" {
		verdict, code = "FAIL", 1
	}
	fmt.Fprintf(os.Stderr, "%s: no test runs: %v\n", verdict, err)
	os.Exit(code)
}

// T is a lab for one test: it is closed when the test ends, and what does not
// work in it ends the test. The methods that follow belong to the goroutine of
// the test; those of Lab and Namespace, which return errors, to any.
//
//	l := netlab.NewT(t)
//	client, server := l.Namespace("client"), l.Namespace("server")
//	l.Must(
//		netlab.Link(client, "eth0", server, "eth0"),
//		client.Addr("eth0", netip.MustParsePrefix("10.0.0.1/24")),
//		server.Addr("eth0", netip.MustParsePrefix("10.0.0.2/24")),
//	)
//	dst := netip.MustParseAddrPort("10.0.0.2:80")
//	l.Serve(server, "tcp", dst, "one")
//	answer := l.Ask(client, "tcp", dst)
type T struct {
	*Lab
	tb testing.TB
}

// NewT returns a lab for a test whose TestMain calls Main.
func NewT(tb testing.TB) *T {
	tb.Helper()
	l, err := New()
	if err != nil {
		tb.Fatalf("TestMain must call netlab.Main: %v", err)
	}
	tb.Cleanup(func() {
		if err := l.Close(); err != nil {
			tb.Errorf("close lab: %v", err)
		}
	})
	return &T{Lab: l, tb: tb}
}

// Must ends the test if one of the errors is not nil. The operations have all
// been tried by then, in their order.
func (t *T) Must(errs ...error) {
	t.tb.Helper()
	for _, err := range errs {
		if err != nil {
			t.tb.Fatal(err)
		}
	}
}

// Namespace creates a namespace, see Lab.Namespace.
func (t *T) Namespace(name string) *Namespace {
	t.tb.Helper()
	n, err := t.Lab.Namespace(name)
	t.Must(err)
	return n
}

// Serve starts a server, see Namespace.Serve.
func (t *T) Serve(n *Namespace, network string, addr netip.AddrPort, name string) *Server {
	t.tb.Helper()
	s, err := n.Serve(network, addr, name)
	t.Must(err)
	return s
}

// Ask returns an answer, see Namespace.Ask.
func (t *T) Ask(n *Namespace, network string, dst netip.AddrPort, opts ...Option) Answer {
	t.tb.Helper()
	a, err := n.Ask(context.Background(), network, dst, opts...)
	t.Must(err)
	return a
}

// Run returns the standard output of a program, see Namespace.Run.
func (t *T) Run(n *Namespace, name string, args ...string) string {
	t.tb.Helper()
	out, err := n.Run(name, args...)
	t.Must(err)
	return out
}

// Eventually ends the test unless f returns nil in time, see Poll.
func (t *T) Eventually(within time.Duration, f func() error) {
	t.tb.Helper()
	t.Must(Poll(within, f))
}
