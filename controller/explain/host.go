// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"math/bits"
	"net/netip"
	"slices"
)

// Host is what is asked of this host's addresses and routes.
type Host interface {
	// Route says which way the kernel sends a packet. From and in, if they are valid,
	// are where it comes from and the device that it comes in by.
	Route(to, from netip.Addr, in string) Route
	// Addrs lists this host's addresses, device by device in the kernel's order.
	Addrs() []Addr
	// Forwards reports whether packets of an address's family are forwarded at all.
	Forwards(netip.Addr) bool
}

// Route is a way.
type Route struct {
	// Local: the destination is an address of this host.
	Local bool
	// Out is the device, Via the next hop, if there is one between.
	Out string
	Via netip.Addr
	// Source is the address that a process on this host gets.
	Source netip.Addr
	// Problem says why there is no way; "" if there is one.
	Problem string
}

// Addr is an address of this host.
type Addr struct {
	Prefix    netip.Prefix // the address, with the length of its network
	Interface string
	// Secondary addresses are never chosen for IPv4.
	Secondary  bool
	Deprecated bool
	// Narrow addresses are good on this host or its link alone.
	Narrow bool
}

// MasqueradeSource is the address that masquerading gives a packet that leaves by a
// device to a next hop, or, of IPv6, to a destination; not valid if there is none.
func MasqueradeSource(all []Addr, out string, to netip.Addr) netip.Addr {
	if to.Is4() {
		return masquerade4(all, out, to)
	}
	return masquerade6(all, out, to)
}

// masquerade4 is inet_select_addr (net/ipv4/devinet.c): an address of the device, best
// in the network of the next hop, or else the first of any device.
func masquerade4(all []Addr, out string, to netip.Addr) (found netip.Addr) {
	eligible := func(a Addr) bool { return a.Prefix.Addr().Is4() && !a.Secondary && !a.Narrow }
	for _, a := range all {
		switch {
		case a.Interface != out || !eligible(a):
		case a.Prefix.Contains(to):
			return a.Prefix.Addr()
		case !found.IsValid():
			found = a.Prefix.Addr()
		}
	}
	if found.IsValid() {
		return found
	}
	if i := slices.IndexFunc(all, eligible); i >= 0 {
		return all[i].Prefix.Addr()
	}
	return netip.Addr{}
}

// masquerade6 is ipv6_dev_get_saddr (net/ipv6/addrconf.c, RFC 6724), but for addresses
// of mobility and privacy: the destination itself, one that is not deprecated, one of
// the device, one of the same kind, the longest common prefix.
func masquerade6(all []Addr, out string, to netip.Addr) (found netip.Addr) {
	var best [5]int
	for _, a := range all {
		addr := a.Prefix.Addr()
		if addr.Is4() || a.Narrow != to.IsLinkLocalUnicast() || a.Narrow && a.Interface != out {
			continue
		}
		score := [5]int{number(addr == to), number(!a.Deprecated), number(a.Interface == out), number(label(addr) == label(to)), min(common(addr, to), a.Prefix.Bits())}
		if !found.IsValid() || slices.Compare(score[:], best[:]) > 0 {
			found, best = addr, score
		}
	}
	return found
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// label is the kernel's default table of labels, as far as hosts have such addresses.
func label(a netip.Addr) int {
	for i, p := range labels {
		if p.Contains(a) {
			return i
		}
	}
	return len(labels)
}

var labels = []netip.Prefix{netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32")}

// common is the length of the common prefix of two addresses.
func common(a, b netip.Addr) (n int) {
	x, y := a.As16(), b.As16()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return n + bits.LeadingZeros8(d)
		}
		n += 8
	}
	return n
}
