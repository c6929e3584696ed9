// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"encoding/binary"
	"net/netip"
)

// Flow is a connection by its first packet.
type Flow struct {
	Source, Target netip.AddrPort
}

// segment is a TCP segment without data, on its way in one direction.
type segment struct {
	Flow
	flags    uint8
	seq, ack uint32
}

const (
	flagSYN = 0x02
	flagACK = 0x10

	answerSeq = 1000 // of all who answer
)

// start is the sequence number with which a flow begins, anyone.
func (f Flow) start() uint32 { return uint32(f.Source.Port())<<16 | uint32(f.Target.Port()) }

// syn begins the connection of a flow.
func (f Flow) syn() segment { return segment{Flow: f, flags: flagSYN, seq: f.start()} }

// confirm is what the client sends once it has an answer.
func (f Flow) confirm() segment {
	return segment{Flow: f, flags: flagACK, seq: f.start() + 1, ack: answerSeq + 1}
}

// answer is the answer to a SYN.
func (s segment) answer() segment {
	back := Flow{Source: s.Target, Target: s.Source}
	return segment{Flow: back, flags: flagSYN | flagACK, seq: answerSeq, ack: s.seq + 1}
}

// frameLen is the length of a segment without options in an Ethernet frame. Nothing
// between two namespaces pads it.
const frameLen = 14 + 20 + 20

// Link is the Ethernet header that all frames of a sender have.
type Link struct {
	Source, Target [6]byte
}

// putFrame writes a segment. Checksums are right, since conntrack looks
// at them, and translation changes them by the difference.
func putFrame(b []byte, link Link, s segment) {
	be := binary.BigEndian
	copy(b, link.Target[:])
	copy(b[6:], link.Source[:])
	be.PutUint16(b[12:], 0x0800)

	ip, tcp := b[14:34], b[34:frameLen]
	clear(ip)
	clear(tcp)
	source, target := s.Source.Addr().As4(), s.Target.Addr().As4()
	ip[0], ip[8], ip[9] = 0x45, 64, 6 // version and length, time to live, TCP
	be.PutUint16(ip[2:], frameLen-14)
	copy(ip[12:], source[:])
	copy(ip[16:], target[:])
	be.PutUint16(ip[10:], checksum(sum(0, ip)))

	be.PutUint16(tcp, s.Source.Port())
	be.PutUint16(tcp[2:], s.Target.Port())
	be.PutUint32(tcp[4:], s.seq)
	be.PutUint32(tcp[8:], s.ack)
	tcp[12], tcp[13] = 5<<4, s.flags // of five words
	be.PutUint16(tcp[14:], 0xffff)   // window
	pseudo := sum(6+uint32(len(tcp)), ip[12:20])
	be.PutUint16(tcp[16:], checksum(sum(pseudo, tcp)))
}

// parseSYN reads a frame; ok is whether a SYN is in it.
func parseSYN(b []byte) (s segment, ok bool) {
	be := binary.BigEndian
	if len(b) < frameLen || be.Uint16(b[12:]) != 0x0800 || b[14] != 0x45 || b[23] != 6 || b[47] != flagSYN {
		return s, false
	}
	return segment{
		Flow: Flow{
			Source: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[26:30])), be.Uint16(b[34:])),
			Target: netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[30:34])), be.Uint16(b[36:])),
		},
		flags: flagSYN, seq: be.Uint32(b[38:]),
	}, true
}

// sum adds 16 bit words, of an even number of bytes (RFC 1071).
func sum(start uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(binary.BigEndian.Uint16(b))
	}
	return start
}

// checksum folds a sum and complements it.
func checksum(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
