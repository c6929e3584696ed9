// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/nft/trace"
)

// traceTarget is what the arguments of trace ask for: a Service, or packets by their
// addresses.
type traceTarget struct {
	service  string // namespace/name, and a port's name or number
	port     string
	src, dst netip.Prefix
	proto    nft.Proto
	dport    uint16
}

// anyAddress is the word for all addresses.
const anyAddress = "any"

// errNoServices says that there is nothing to look at.
var errNoServices = fmt.Errorf("there are no Services in tables %s and %s %s: is kube-nft run at work here? In a container, its network namespace has to be the host's",
	nft.IPv4, nft.IPv6, nft.TableName)

var errTarget = errors.New("want [SRC] [DST[:PORT][/PROTO]], each an address, a prefix or any, or NAMESPACE/SERVICE[:PORT]")

// parseTraceTarget reads the arguments.
func parseTraceTarget(args []string) (traceTarget, error) {
	var t traceTarget
	var err error
	switch len(args) {
	case 1:
		if t.service, t.port, err = parseServiceName(args[0]); err == nil && t.service != "" {
			return t, nil
		}
	case 2:
		if t.src, err = parsePrefix(args[0]); err != nil {
			return t, fmt.Errorf("source %q: %w; %w", args[0], errTarget, errUsage)
		}
	}
	if len(args) > 0 {
		last := args[len(args)-1]
		if err = t.parseDestination(last); err != nil {
			return t, fmt.Errorf("destination %q: %w; %w", last, err, errUsage)
		}
	}
	if t.src.IsValid() && t.dst.IsValid() && t.src.Addr().Is4() != t.dst.Addr().Is4() {
		return t, fmt.Errorf("source %s and destination %s are of different IP families; %w", t.src, t.dst, errUsage)
	}
	return t, nil
}

// parseServiceName takes namespace/name:port apart; the Service is "" if the argument
// names an address instead.
func parseServiceName(arg string) (service, port string, err error) {
	first, rest, ok := strings.Cut(arg, "/")
	if !ok || first == "" || rest == "" || strings.ContainsAny(first, ":.[]") || first == anyAddress {
		return "", "", nil
	}
	name, port, _ := strings.Cut(rest, ":")
	return first + "/" + name, port, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if s == anyAddress {
		return netip.Prefix{}, nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, errTarget
	}
	a = a.Unmap().WithZone("")
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func (t *traceTarget) parseDestination(s string) (err error) {
	if at := strings.LastIndex(s, "/"); at >= 0 {
		if p, ok := map[string]nft.Proto{"tcp": nft.TCP, "udp": nft.UDP, "sctp": nft.SCTP}[strings.ToLower(s[at+1:])]; ok {
			t.proto, s = p, s[:at]
		}
	}
	if t.dst, err = parsePrefix(s); err == nil {
		return nil
	}
	host, port, ok := cutPort(s)
	if !ok {
		return errTarget
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("port %q is none: a number from 1 to 65535", port)
	}
	t.dport = uint16(n)
	t.dst, err = parsePrefix(host)
	return err
}

// cutPort splits 10.0.0.1:80, [fd00::1]:80 and any:80.
func cutPort(s string) (host, port string, ok bool) {
	at := strings.LastIndex(s, ":")
	if at < 0 {
		return "", "", false
	}
	host, port = s[:at], s[at+1:]
	if inner, found := strings.CutPrefix(host, "["); found {
		host, found = strings.CutSuffix(inner, "]")
		return host, port, found
	}
	return host, port, !strings.Contains(host, ":")
}

// String says which packets these are.
func (t traceTarget) String() string {
	if t.service != "" {
		words := "to Service " + t.service
		if t.port != "" {
			words += ":" + t.port
		}
		return words
	}
	words := "of any kind"
	if t.proto != 0 {
		words = "of " + t.proto.String()
	}
	if t.src.IsValid() {
		words += " from " + t.src.String()
	}
	if t.dst.IsValid() {
		words += " to " + t.dst.String()
	}
	if t.dport != 0 {
		words += fmt.Sprintf(" to port %d", t.dport)
	}
	return words
}

// matches returns what the kernel is to look for. A Service is looked up in the
// tables: what is followed is what the kernel has.
func (t traceTarget) matches(ctx context.Context, conn *kernel.Conn) ([]trace.Match, error) {
	if t.service != "" {
		return t.serviceMatches(ctx, conn)
	}
	m := trace.Match{Src: t.src, Dst: t.dst, Proto: t.proto, Port: t.dport}
	if t.proto != 0 || t.dport == 0 {
		return []trace.Match{m}, nil
	}
	var all []trace.Match
	for _, p := range []nft.Proto{nft.TCP, nft.UDP, nft.SCTP} {
		m.Proto = p
		all = append(all, m)
	}
	return all, nil
}

func (t traceTarget) serviceMatches(ctx context.Context, conn *kernel.Conn) ([]trace.Match, error) {
	seen := make(map[trace.Match]bool)
	var all []trace.Match
	anything := false
	for _, f := range nft.Families {
		_, err := conn.Connections(ctx, f, func(_ uint64, e nft.Element, _ uint64) {
			anything = true
			if m := frontendMatch(e); t.names(e) && !seen[m] {
				seen[m] = true
				all = append(all, m)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	switch {
	case !anything:
		return nil, errNoServices
	case len(all) == 0:
		return nil, fmt.Errorf("no Service port %s in this host's tables: see kube-nft list", strings.TrimPrefix(t.String(), "to Service "))
	}
	return all, nil
}

// names reports whether a frontend is one of the Service asked for; its port is
// named by name or by number.
func (t traceTarget) names(e nft.Element) bool {
	service, port, _ := strings.Cut(e.Value.Comment, ":")
	return service == t.service && (t.port == "" || t.port == port || t.port == strconv.Itoa(int(e.Key.Port)))
}

// frontendMatch matches packets to a frontend. Those of a node port are to any
// address of this host.
func frontendMatch(e nft.Element) trace.Match {
	m := trace.Match{Proto: e.Key.Proto, Port: e.Key.Port}
	if e.Key.Addr.IsValid() {
		m.Dst = netip.PrefixFrom(e.Key.Addr, e.Key.Addr.BitLen())
	} else {
		m.Local = true
	}
	return m
}
