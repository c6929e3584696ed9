// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"net/netip"

	"github.com/kube-nft/kube-nft/nft"
)

// Header is what a packet says of itself: as much as the kernel tells, which is 40
// bytes of the network header and 20 of the next one.
type Header struct {
	// Src and Dst have port 0 where the protocol has none.
	Src, Dst netip.AddrPort
	Proto    nft.Proto
	// TTL is how many more routers it may pass.
	TTL uint8
	// Length is that of the whole packet, in bytes.
	Length int
	// Begins reports whether the packet may be the first of a connection: for TCP a
	// SYN, for SCTP an INIT; every packet of other protocols.
	Begins bool
}

// Lengths of headers without options (RFC 791, RFC 8200).
const (
	ip4Len = 20
	ip6Len = 40
)

// Where things are in the headers of TCP (RFC 9293) and SCTP (RFC 9260).
const (
	tcpFlagsAt  = 13
	tcpSYN      = 0x02
	tcpACK      = 0x10
	sctpChunkAt = 12
	sctpINIT    = 1
)

// ParseHeader reads a packet's headers. It reports false if there is no IP header.
func ParseHeader(network, transport []byte) (h Header, ok bool) {
	var src, dst netip.Addr
	switch {
	case len(network) >= ip4Len && network[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(network[12:16])), netip.AddrFrom4([4]byte(network[16:20]))
		h.Proto, h.TTL = nft.Proto(network[9]), network[8]
		h.Length = int(binary.BigEndian.Uint16(network[2:]))
	case len(network) >= ip6Len && network[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(network[8:24])), netip.AddrFrom16([16]byte(network[24:40]))
		h.Proto, h.TTL = nft.Proto(network[6]), network[7]
		h.Length = int(binary.BigEndian.Uint16(network[4:])) + ip6Len
	default:
		return Header{}, false
	}
	h.Begins = true
	var from, to uint16
	switch h.Proto {
	case nft.TCP, nft.UDP, nft.SCTP:
		if len(transport) >= 4 {
			from, to = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
		}
	}
	switch {
	case h.Proto == nft.TCP && len(transport) > tcpFlagsAt:
		h.Begins = transport[tcpFlagsAt]&(tcpSYN|tcpACK) == tcpSYN
	case h.Proto == nft.SCTP && len(transport) > sctpChunkAt:
		h.Begins = transport[sctpChunkAt] == sctpINIT
	}
	h.Src, h.Dst = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
	return h, true
}

// Family is that of the addresses.
func (h *Header) Family() nft.Family { return nft.FamilyOf(h.Dst.Addr()) }
