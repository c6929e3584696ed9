// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"unique"
)

// Key finds an element in its set. Which fields count depends on the set; the
// others are zero, so that keys compare with ==.
type Key struct {
	// Addr is a service's, an endpoint's or a node's address.
	Addr netip.Addr
	// Proto and Port are what the client addressed.
	Proto Proto
	Port  uint16
	// Slot numbers the endpoints of a Service port, from 0 and without holes.
	Slot uint32
	// Range holds addresses: of sources, or of Services.
	Range Range
}

// Range is a prefix of addresses, small and comparable.
type Range struct{ handle unique.Handle[netip.Prefix] }

// RangeOf returns the range of a prefix.
func RangeOf(p netip.Prefix) Range { return Range{unique.Make(p.Masked())} }

// Prefix returns the range's prefix; the zero Range has the zero prefix.
func (r Range) Prefix() netip.Prefix {
	if r == (Range{}) {
		return netip.Prefix{}
	}
	return r.handle.Value()
}

// Compare orders ranges by their first address and length.
func (r Range) Compare(o Range) int {
	if r == o {
		return 0
	}
	a, b := r.Prefix(), o.Prefix()
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// last is the last address of the range.
func (r Range) last() netip.Addr {
	p := r.Prefix()
	bytes := p.Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a
}

// Value is what a map element leads to; zero for the elements of sets.
type Value struct {
	// Verdict is the chain that a verdict element goes to.
	Verdict Chain
	// To is the endpoint of a data element.
	To netip.AddrPort
	// Comment names the Service port, namespace/name:port, on frontends.
	Comment string
}

// Element is one element of one set. Elements compare with ==.
type Element struct {
	Set   Set
	Key   Key
	Value Value
}

// CommentLimit is the longest comment of an element, in bytes; nft refuses to
// load longer ones (nftables, NFTNL_UDATA_COMMENT_MAXLEN).
const CommentLimit = 127

// Compare orders elements by set and key: by address, protocol, port and slot.
func (e Element) Compare(o Element) int {
	if c := cmp.Compare(e.Set, o.Set); c != 0 {
		return c
	}
	return e.Key.Compare(o.Key)
}

// Compare orders keys by address, protocol, port and slot.
func (k Key) Compare(o Key) int {
	return cmp.Or(
		k.Addr.Compare(o.Addr),
		cmp.Compare(k.Proto, o.Proto),
		cmp.Compare(k.Port, o.Port),
		cmp.Compare(k.Slot, o.Slot),
		k.Range.Compare(o.Range),
	)
}

// String returns the element as nft prints it, with its set.
func (e Element) String() string {
	return e.Set.String() + " { " + e.text() + " }"
}

// text returns the element as it stands between braces in nft text.
func (e Element) text() string {
	l := layouts[e.Set]
	var b strings.Builder
	for i, fl := range l.key {
		if i > 0 {
			b.WriteString(" . ")
		}
		switch fl {
		case fieldDaddr, fieldSaddr:
			b.WriteString(e.Key.Addr.String())
		case fieldProto:
			b.WriteString(e.Key.Proto.String())
		case fieldPort:
			fmt.Fprintf(&b, "%d", e.Key.Port)
		case fieldSlot:
			fmt.Fprintf(&b, "%d", e.Key.Slot)
		case fieldDaddrRange, fieldSaddrRange:
			b.WriteString(prefixText(e.Key.Range.Prefix()))
		}
	}
	if e.Value.Comment != "" {
		b.WriteString(` comment "` + printable(e.Value.Comment) + `"`) // nft knows no escapes
	}
	switch {
	case l.verdict:
		b.WriteString(" : " + e.Value.Verdict.verdict())
	case l.data != nil:
		fmt.Fprintf(&b, " : %s . %d", e.Value.To.Addr(), e.Value.To.Port())
	}
	return b.String()
}
