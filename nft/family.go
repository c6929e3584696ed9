// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
)

// Family is the address family of a table. Its values are the kernel's NFPROTO_*
// numbers, as they stand in a netlink message (linux/netfilter.h).
type Family uint8

// The families that have a table.
const (
	IPv4 Family = 2
	IPv6 Family = 10
)

// Families lists every family, in the order in which they are programmed.
var Families = [...]Family{IPv4, IPv6}

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// String returns the family's word in nft text: ip or ip6.
func (f Family) String() string {
	switch f {
	case IPv4:
		return "ip"
	case IPv6:
		return "ip6"
	}
	return fmt.Sprintf("family(%d)", uint8(f))
}

// addrLen is the length of an address in bytes.
func (f Family) addrLen() int {
	if f == IPv4 {
		return 4
	}
	return 16
}

// addrFromBytes reads an address of the family; b has addrLen bytes.
func (f Family) addrFromBytes(b []byte) netip.Addr {
	if f == IPv4 {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b))
}

// Proto is an IP protocol number that a Service port can have.
type Proto uint8

// The protocols of Kubernetes Services.
const (
	TCP  Proto = 6
	UDP  Proto = 17
	SCTP Proto = 132
)

// String returns the protocol's word in nft text.
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("%d", uint8(p))
}
