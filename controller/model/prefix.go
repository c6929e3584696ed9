// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"
	"slices"
)

// Disjoint returns prefixes that hold the same addresses as the given ones: sorted,
// masked, IPv4-mapped ones unmapped, each once, none inside another. An interval
// set of nftables takes nothing else. Invalid prefixes are left out; IPv4 and IPv6
// have nothing in common.
//
// Neighbours stay as they are: what is in the table is then what an object says,
// and when one of two halves goes the other need not change.
func Disjoint(prefixes []netip.Prefix) []netip.Prefix {
	all := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.IsValid() {
			all = append(all, unmapPrefix(p))
		}
	}
	// A prefix comes before all that is inside it, and nothing else comes between.
	slices.SortFunc(all, netip.Prefix.Compare)
	disjoint := all[:0]
	for _, p := range all {
		if n := len(disjoint); n == 0 || !disjoint[n-1].Contains(p.Addr()) {
			disjoint = append(disjoint, p)
		}
	}
	return disjoint
}

// unmapPrefix masks a prefix and makes one of IPv4-mapped addresses alone one of
// IPv4 (RFC 4291, 2.5.5.2).
func unmapPrefix(p netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p.Masked()
}

// parsePrefix reads a CIDR; bits behind its length do not count. Unlike in
// kube-proxy, numbers with leading zeros are errors: whether 010 is ten or eight
// is a matter of who reads it (RFC 6943, 3.1.1).
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR like 192.0.2.0/24 or 2001:db8::/64", s)
	}
	return unmapPrefix(p), nil
}
