// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Keys and data of the sets travel as bytes: each field is padded to four bytes,
// addresses and ports in network order, and the index that numgen draws in host
// order, as the kernel's registers hold them. What is encoded here is decoded
// beside it; verdicts and frames are the matter of package kernel.

// AppendKey appends the key of an element of the set.
func AppendKey(b []byte, f Family, s Set, k Key) []byte {
	for _, fl := range layouts[s].key {
		if fl.ranged() {
			b = append(b, k.Range.Prefix().Addr().AsSlice()...)
			continue
		}
		b = appendField(b, f, fl, k.Addr, k.Proto, k.Port, k.Slot)
	}
	return b
}

// AppendKeyEnd appends the end of an element of a set of ranges: the last key in
// it, or in a set whose key is nothing but a range the first one behind it. It
// reports whether there is one: a range may last until the end of all addresses.
func AppendKeyEnd(b []byte, f Family, s Set, k Key) ([]byte, bool) {
	last := k.Range.last()
	if !s.Concatenated() {
		if last = last.Next(); !last.IsValid() {
			return b, false
		}
		return append(b, last.AsSlice()...), true
	}
	k.Range = RangeOf(netip.PrefixFrom(last, last.BitLen()))
	return AppendKey(b, f, s, k), true
}

// DecodeKeyEnd completes a key that was decoded from its beginning.
func DecodeKeyEnd(start Key, b []byte, f Family, s Set) (Key, error) {
	last := netip.Addr{}
	switch end, err := DecodeKey(b, f, s); {
	case err != nil:
		return Key{}, err
	case start.Range == Range{} || end.Range == Range{}:
		return Key{}, fmt.Errorf("key of %s: an end of a range that has no beginning", s)
	case s.Concatenated():
		last = end.Range.Prefix().Addr()
	default:
		last = end.Range.Prefix().Addr().Prev()
	}
	first, ok := start.Range.Prefix().Addr(), false
	if start.Range, ok = RangeFromTo(first, last); !ok {
		return Key{}, fmt.Errorf("key of %s: %s to %s is no prefix", s, first, last)
	}
	return start, nil
}

// RangeFromTo returns the range from a first to a last address, if it is a prefix.
func RangeFromTo(first, last netip.Addr) (Range, bool) {
	for bits := range first.BitLen() + 1 {
		if r := RangeOf(netip.PrefixFrom(first, bits)); r.Prefix().Addr() == first && r.last() == last {
			return r, true
		}
	}
	return Range{}, false
}

// AppendData appends the data of an element of a data map.
func AppendData(b []byte, f Family, s Set, v Value) []byte {
	for _, fl := range layouts[s].data {
		b = appendField(b, f, fl, v.To.Addr(), 0, v.To.Port(), 0)
	}
	return b
}

func appendField(b []byte, f Family, fl field, a netip.Addr, p Proto, port uint16, slot uint32) []byte {
	switch fl {
	case fieldProto:
		return append(b, uint8(p), 0, 0, 0)
	case fieldPort:
		return append(b, uint8(port>>8), uint8(port), 0, 0)
	case fieldSlot:
		return binary.NativeEndian.AppendUint32(b, slot)
	}
	if f == IPv4 {
		a4 := a.As4()
		return append(b, a4[:]...)
	}
	a16 := a.As16()
	return append(b, a16[:]...)
}

// AppendClient appends the key of an entry of a map from clients to endpoints;
// its data is that of an element of Endpoints.
func AppendClient(b []byte, client netip.Addr) []byte { return append(b, client.AsSlice()...) }

// DecodeClient reads the key of an entry of a map from clients to endpoints.
func DecodeClient(b []byte, f Family) (netip.Addr, error) {
	if len(b) != f.addrLen() {
		return netip.Addr{}, fmt.Errorf("client of %d bytes instead of %d", len(b), f.addrLen())
	}
	return f.addrFromBytes(b), nil
}

// DecodeKey reads the key of an element of the set.
func DecodeKey(b []byte, f Family, s Set) (Key, error) {
	var k Key
	if err := decodeFields(b, f, s, layouts[s].key, &k); err != nil {
		return Key{}, fmt.Errorf("key of %s: %w", s, err)
	}
	return k, nil
}

// DecodeData reads the data of an element of a data map.
func DecodeData(b []byte, f Family, s Set) (Value, error) {
	var k Key
	if err := decodeFields(b, f, s, layouts[s].data, &k); err != nil {
		return Value{}, fmt.Errorf("data of %s: %w", s, err)
	}
	return Value{To: netip.AddrPortFrom(k.Addr, k.Port)}, nil
}

func decodeFields(b []byte, f Family, s Set, fields []field, k *Key) error {
	if _, n := fieldsType(f, fields); len(b) != int(n) {
		return fmt.Errorf("%d bytes instead of %d", len(b), n)
	}
	for i, fl := range fields {
		switch fl {
		case fieldProto:
			k.Proto = Proto(b[0])
		case fieldPort:
			k.Port = binary.BigEndian.Uint16(b)
		case fieldSlot:
			k.Slot = binary.NativeEndian.Uint32(b)
		case fieldDaddrRange, fieldSaddrRange:
			a := f.addrFromBytes(b[:f.addrLen()])
			k.Range = RangeOf(netip.PrefixFrom(a, a.BitLen()))
			b = b[f.addrLen():]
			continue
		default:
			n := f.addrLen()
			a := f.addrFromBytes(b[:n])
			if i > 0 && a != k.Addr {
				return fmt.Errorf("two addresses, %s and %s, where kube-nft writes one twice", k.Addr, a)
			}
			k.Addr = a
			b = b[n:]
			continue
		}
		b = b[4:]
	}
	return nil
}

// A comment is a typed string in the element's user data (libnftnl,
// NFTNL_UDATA_SET_ELEM_COMMENT).
const udataComment = 0

// AppendComment appends the user data that holds a comment.
func AppendComment(b []byte, comment string) []byte {
	if len(comment) > CommentLimit {
		comment = comment[:CommentLimit]
	}
	b = append(b, udataComment, uint8(len(comment)+1))
	return append(append(b, comment...), 0)
}

// DecodeComment finds the comment in an element's user data; "" if there is none. It
// is what somebody wrote who may change the table, and is going to be shown: what could
// end a line, a text, or move a terminal's cursor is a question mark.
func DecodeComment(b []byte) string {
	for len(b) >= 2 {
		typ, n := b[0], int(b[1])
		if len(b) < 2+n {
			return ""
		}
		if typ == udataComment && n > 0 {
			return printable(string(b[2 : 2+n-1]))
		}
		b = b[2+n:]
	}
	return ""
}

// printable returns a comment without what nft's text cannot hold, which has no escapes:
// quotes, and all that is no letter, number or sign of ASCII.
func printable(comment string) string {
	odd := func(c rune) bool { return c < ' ' || c > '~' || c == '"' }
	if !strings.ContainsFunc(comment, odd) {
		return comment
	}
	return strings.Map(func(c rune) rune {
		if odd(c) {
			return '?'
		}
		return c
	}, comment)
}
