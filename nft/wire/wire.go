// SPDX-License-Identifier: Apache-2.0

// Package wire is the form of netlink messages and attributes (linux/netlink.h,
// RFC 3549), for those who read and write them without copies. It is pure; what
// they mean is for others to know.
package wire

import (
	"bytes"
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Lengths of what stands before others, in bytes.
const (
	HeaderLen = unix.SizeofNlMsghdr
	FamilyLen = 4 // struct nfgenmsg, with which messages of netfilter begin
	AttrLen   = unix.SizeofNlAttr
)

// Align rounds a length up to where the next message or attribute begins.
func Align(n int) int { return (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }

// Next splits the first message from a datagram. It reports false if there is none,
// or one that does not fit.
func Next(b []byte) (h unix.NlMsghdr, body, rest []byte, ok bool) {
	if len(b) < HeaderLen {
		return h, nil, nil, false
	}
	h = unix.NlMsghdr{
		Len:   binary.NativeEndian.Uint32(b),
		Type:  binary.NativeEndian.Uint16(b[4:]),
		Flags: binary.NativeEndian.Uint16(b[6:]),
		Seq:   binary.NativeEndian.Uint32(b[8:]),
	}
	if h.Len < HeaderLen || int64(h.Len) > int64(len(b)) {
		return h, nil, nil, false
	}
	return h, b[HeaderLen:h.Len], b[min(Align(int(h.Len)), len(b)):], true
}

// Attrs walks attributes without copying. It stops at the first one that does not
// fit: the kernel writes none, and a fuzzer gets no panic.
func Attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= AttrLen {
			n := int(binary.NativeEndian.Uint16(b))
			if n < AttrLen || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[AttrLen:n]) {
				return
			}
			b = b[min(Align(n), len(b)):]
		}
	}
}

// First returns the value of the first attribute of the type, or nil.
func First(b []byte, typ uint16) []byte {
	for t, v := range Attrs(b) {
		if t == typ {
			return v
		}
	}
	return nil
}

// AppendAttr appends an attribute.
func AppendAttr(b []byte, typ uint16, value ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(AttrLen+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	return append(b, make([]byte, Align(len(value))-len(value))...)
}

// String reads an attribute that is a string, up to the zero byte that ends it.
func String(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// U32 reads a number in network byte order, as nf_tables writes its own; 0 is also
// what is no such number.
func U32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// U64 is U32 for 64 bits.
func U64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
