// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// field is something that a packet is known by.
type field uint8

const (
	unknownField field = iota
	sourceAddr
	destAddr
	protocol
	sourcePort
	destPort
	inName
	outName
	inIndex
	outIndex
	nfProto
	etherType
	ctState
	ctStatus
	xtState // the state as xtables has it: ours, and whether it is translated
	mark
	numFields
)

// operand is what a register holds: a part of a field, mask and xor applied.
type operand struct {
	field     field
	off       int
	mask, xor []byte
	constant  []byte // of an immediate
}

// Match is a condition of a rule.
type Match struct {
	of operand
	// ranges of which one must hold the value; nil bounds are open.
	ranges []span
	not    bool
	// Set is the set that is looked up in, "" if there is none.
	Set string
}

type span struct{ from, to []byte }

// truth is what is known of a condition.
type truth uint8

const (
	no truth = iota
	maybe
	yes
)

func (t truth) not() truth { return yes - t }

// and is the truth of both.
func (t truth) and(o truth) truth { return min(t, o) }

// Packet is what is known of a packet; what is left out may be anything.
type Packet struct {
	Family       Family // IPv4 or IPv6
	In, Out      string // interfaces, as far as the hook has them
	InIndex      int
	OutIndex     int
	Source, Dest netip.Prefix // that the addresses are in
	Proto        uint8
	SourcePort   uint16
	DestPort     uint16
	// New says that it begins a connection, and Translated that conntrack has
	// given it another destination: both are known of the packets of Services.
	New, Translated bool
}

// bits of conntrack's states (nf_conntrack_common.h; xt_conntrack.h).
const (
	stateNew   = 8
	statusDNAT = 32
	xtDNAT     = 128
)

// value returns what is known of a field: its bytes, and which bits of them are
// known; nil if nothing is.
func (p *Packet) value(f field) (v, known []byte) {
	switch f {
	case sourceAddr:
		return prefix(p.Source)
	case destAddr:
		return prefix(p.Dest)
	case protocol:
		return whole(p.Proto != 0, []byte{p.Proto})
	case sourcePort:
		return whole(p.SourcePort != 0, binary.BigEndian.AppendUint16(nil, p.SourcePort))
	case destPort:
		return whole(p.DestPort != 0, binary.BigEndian.AppendUint16(nil, p.DestPort))
	case inName:
		return whole(p.In != "", ifname(p.In))
	case outName:
		return whole(p.Out != "", ifname(p.Out))
	case inIndex:
		return whole(p.InIndex != 0, binary.NativeEndian.AppendUint32(nil, uint32(p.InIndex)))
	case outIndex:
		return whole(p.OutIndex != 0, binary.NativeEndian.AppendUint32(nil, uint32(p.OutIndex)))
	case nfProto:
		return whole(true, []byte{uint8(p.Family)})
	case etherType:
		if p.Family == IPv4 {
			return whole(true, binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
		}
		return whole(true, binary.BigEndian.AppendUint16(nil, unix.ETH_P_IPV6))
	case ctState:
		return whole(p.New, binary.NativeEndian.AppendUint32(nil, stateNew))
	case ctStatus:
		return p.status(statusDNAT, 0)
	case xtState:
		return p.status(xtDNAT, stateNew)
	}
	return nil, nil
}

// status is what is known of flags: that of translation, and if the packet is new
// all others but those of the source, which is translated last.
func (p *Packet) status(dnat, state uint32) (v, known []byte) {
	if !p.New {
		return nil, nil
	}
	flags, sure := state, dnat|state
	if p.Translated {
		flags |= dnat
	}
	if state != 0 {
		sure |= 1 | 2 | 4 // invalid, established, related: it is none of these
	}
	return binary.NativeEndian.AppendUint32(nil, flags), binary.NativeEndian.AppendUint32(nil, sure)
}

func whole(ok bool, v []byte) ([]byte, []byte) {
	if !ok {
		return nil, nil
	}
	return v, bytes.Repeat([]byte{0xff}, len(v))
}

func prefix(p netip.Prefix) (v, known []byte) {
	if !p.IsValid() {
		return nil, nil
	}
	v = p.Masked().Addr().AsSlice()
	known = make([]byte, len(v))
	for i := range p.Bits() {
		known[i/8] |= 0x80 >> (i % 8)
	}
	return v, known
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// subject is a packet with the values of its fields, and which of their bits are known.
type subject struct {
	v, known [numFields][]byte
}

func (p *Packet) subject() *subject {
	var s subject
	for f := range numFields {
		s.v[f], s.known[f] = p.value(f)
	}
	return &s
}

// longest is how long a value may be that is understood: an IPv6 address, or the name
// of an interface.
const longest = 16

// get is the operand's value, n bytes of it; ok is false if nothing is known.
func (o *operand) get(p *subject, n int) (v, known [longest]byte, ok bool) {
	if n > longest || o.off+n > len(p.v[o.field]) {
		return v, known, false
	}
	copy(v[:n], p.v[o.field][o.off:])
	copy(known[:n], p.known[o.field][o.off:])
	for i := range n {
		if i < len(o.mask) {
			known[i] |= ^o.mask[i]
			v[i] &= o.mask[i]
		}
		if i < len(o.xor) {
			v[i] ^= o.xor[i]
		}
	}
	return v, known, true
}

// holds says whether the operand is in the range for a packet.
func (s span) holds(o *operand, p *subject) truth {
	n := max(len(s.from), len(s.to))
	v, known, ok := o.get(p, n)
	if !ok {
		return maybe
	}
	all, differs := true, false
	for i, k := range known[:n] {
		all = all && k == 0xff
		differs = differs || len(s.from) == n && (v[i]^s.from[i])&k != 0
	}
	switch {
	case differs && bytes.Equal(s.from, s.to):
		return no
	case !all:
		return maybe
	case s.from != nil && bytes.Compare(v[:n], s.from) < 0, s.to != nil && bytes.Compare(v[:n], s.to) > 0:
		return no
	}
	return yes
}

// holds says whether the condition holds for a packet.
func (m *Match) holds(t *Table, p *subject) truth {
	is := no
	switch {
	case m.of.field == unknownField || m.of.field == mark:
		return maybe
	case m.Set != "":
		s := t.Sets[m.Set]
		if s == nil || !s.read {
			return maybe
		}
		for i := range s.elements {
			if is = max(is, s.holds(i, &m.of, p)); is == yes {
				break
			}
		}
	default:
		for _, r := range m.ranges {
			is = max(is, r.holds(&m.of, p))
		}
	}
	if m.not {
		return is.not()
	}
	return is
}

// holds says whether the operand is what an element stands for.
func (s *Set) holds(i int, o *operand, p *subject) truth {
	e := &s.elements[i]
	switch {
	case e.Last:
		return no
	case e.Key == nil: // what is said of all other keys
		return maybe
	case !s.Interval:
		return span{e.Key, e.Key}.holds(o, p)
	case e.End != nil: // a concatenation, whose parts are not told apart here
		return maybe
	}
	return span{e.Key, e.to}.holds(o, p)
}

// close notes for each range where it ends. In a set of plain ranges an element is
// where one begins or, marked as such, the first key behind it.
func (s *Set) close() {
	if !s.Interval {
		return
	}
	slices.SortStableFunc(s.elements, func(a, b Element) int { return bytes.Compare(a.Key, b.Key) })
	for i := range s.elements {
		e := &s.elements[i]
		e.to = bytes.Repeat([]byte{0xff}, len(e.Key))
		if i+1 < len(s.elements) && len(s.elements[i+1].Key) == len(e.Key) {
			e.to = before(s.elements[i+1].Key)
		}
	}
}

// before is the key before another one.
func before(key []byte) []byte {
	last := bytes.Clone(key)
	for i := len(last) - 1; i >= 0; i-- {
		last[i]--
		if last[i] != 0xff {
			break
		}
	}
	return last
}
