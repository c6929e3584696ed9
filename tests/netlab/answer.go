// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The ways in which a question stays without an answer. Exactly one of them,
// or none, is in the chain of an error from Ask or Dial.
var (
	// ErrRefused: a TCP reset, an SCTP abort or an ICMP error said that nothing
	// listens at the port.
	ErrRefused = errors.New("refused")
	// ErrReset: the peer, or somebody in its name, ended an established
	// connection.
	ErrReset = errors.New("reset")
	// ErrUnreachable: there is no route, or an ICMP error other than those of
	// ErrRefused, such as "administratively prohibited".
	ErrUnreachable = errors.New("unreachable")
	// ErrTimeout: nothing came back in time.
	ErrTimeout = errors.New("timeout")
	// ErrFiltered: a packet filter in the client's own namespace dropped the
	// packet on its way out, which the kernel tells the sender. A TCP client is
	// not told; it sees ErrTimeout.
	ErrFiltered = errors.New("filtered")
	// ErrSentAgain: a packet was lost, which TCP sent again; see Lossless.
	ErrSentAgain = errors.New("a packet was lost, and sent again")
)

// classes maps what the kernel says to the sentinels.
var classes = []struct {
	cause, class error
}{
	{os.ErrDeadlineExceeded, ErrTimeout},
	{context.DeadlineExceeded, ErrTimeout},
	{unix.ETIMEDOUT, ErrTimeout},
	{unix.ECONNREFUSED, ErrRefused},
	{unix.ENOPROTOOPT, ErrRefused}, // no SCTP at the destination: ICMP protocol unreachable
	{unix.EPROTO, ErrRefused},      // the same in ICMPv6: unrecognized next header
	{unix.ECONNRESET, ErrReset},
	{unix.EPIPE, ErrReset},
	{unix.EHOSTUNREACH, ErrUnreachable},
	{unix.ENETUNREACH, ErrUnreachable},
	{unix.EACCES, ErrUnreachable}, // ICMPv6 administratively prohibited
	{unix.EPERM, ErrFiltered},
	{ErrSentAgain, ErrSentAgain},
}

// classify returns the sentinel for an error, nil if there is none.
func classify(err error) error {
	for _, c := range classes {
		if errors.Is(err, c.class) || errors.Is(err, c.cause) {
			return c.class
		}
	}
	return nil
}

// explain wraps an error with the operation and its sentinel.
func explain(op string, err error) error {
	if class := classify(err); class != nil && !errors.Is(err, class) {
		return fmt.Errorf("%s: %w: %w", op, class, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// Answer is what a server said.
type Answer struct {
	Server string         // the name of the server
	Source netip.AddrPort // where the request came from, as the server saw it
	Took   time.Duration  // from the first packet, the handshake of TCP included
}

// line returns an answer as a server writes it.
func line(name string, source netip.AddrPort) string {
	return name + " " + source.String() + "\n"
}

// parseAnswer is the reverse of line.
func parseAnswer(s string) (Answer, error) {
	name, source, _ := strings.Cut(strings.TrimSuffix(s, "\n"), " ")
	addr, err := netip.ParseAddrPort(source)
	if err != nil {
		return Answer{}, fmt.Errorf("parse answer %q: %w", s, err)
	}
	return Answer{Server: name, Source: addr}, nil
}

// plain returns an address without the IPv4-mapped form.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
