// SPDX-License-Identifier: Apache-2.0

package program

import (
	"encoding/binary"
	"net/netip"
)

// Flags of TCP, and the size of its header without options.
const (
	flagSYN = 1 << 1
	flagACK = 1 << 4

	headerSize = 20
)

// putSYN writes the first packet of a connection, without its IP header.
func putSYN(b []byte, from, to netip.AddrPort) {
	_ = b[headerSize-1]
	clear(b[:headerSize])
	binary.BigEndian.PutUint16(b[0:], from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	b[7] = 1               // sequence number
	b[12] = headerSize / 4 // in words
	b[12] <<= 4
	b[13] = flagSYN
	binary.BigEndian.PutUint16(b[14:], 64240) // window
	binary.BigEndian.PutUint16(b[16:], checksum(b[:headerSize], from.Addr(), to.Addr()))
}

// checksum is that of TCP over IPv4. The segment has an even length.
func checksum(segment []byte, from, to netip.Addr) uint16 {
	const protocol = 6
	sum := uint32(protocol) + uint32(len(segment))
	for _, a := range []netip.Addr{from, to} {
		b := a.As4()
		sum += uint32(binary.BigEndian.Uint16(b[0:])) + uint32(binary.BigEndian.Uint16(b[2:]))
	}
	for i := 0; i < len(segment); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(segment[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// seen is a TCP packet that has come.
type seen struct {
	from, to netip.AddrPort
	flags    byte
}

// parse reads a packet with its IP header.
func parse(b []byte) (s seen, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return s, false
	}
	size := int(b[0]&0xf) * 4
	if size < 20 || len(b) < size+headerSize {
		return s, false
	}
	from, to := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	tcp := b[size:]
	s.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp[0:]))
	s.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(tcp[2:]))
	s.flags = tcp[13]
	return s, true
}
