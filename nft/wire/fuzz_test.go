// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"testing"
)

// FuzzWalk walks any bytes as messages and as attributes: it ends, never leaves them,
// and finds again what was appended.
func FuzzWalk(f *testing.F) {
	attr := AppendAttr(AppendAttr(nil, 1, []byte("kube-nft\x00")...), 2, 0, 0, 0, 1)
	message := append([]byte{byte(HeaderLen + len(attr)), 0, 0, 0, 9, 10, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0}, attr...)
	f.Add(message, uint16(1), []byte("x"))
	f.Add(append(bytes.Clone(message), message...), uint16(0x8003), []byte{})
	f.Add([]byte{0, 0, 0, 0}, uint16(0x3fff), bytes.Repeat([]byte{1}, 300))
	f.Add([]byte{3, 0, 1, 0, 255, 255, 2, 0}, uint16(0), []byte(nil))
	f.Fuzz(func(t *testing.T, in []byte, typ uint16, value []byte) {
		left := 0
		for b := in; ; {
			h, body, rest, ok := Next(b)
			if !ok {
				break
			}
			if int(h.Len) != HeaderLen+len(body) || len(rest) >= len(b) {
				t.Fatalf("a message of %d bytes has a body of %d and leaves %d of %d", h.Len, len(body), len(rest), len(b))
			}
			walk(t, body)
			if left++; left > len(in)/HeaderLen {
				t.Fatal("more messages than there is room for")
			}
			b = rest
		}
		walk(t, in)
		const room = 1<<16 - 1 - AttrLen // an attribute's length is 16 bits
		typ, value = typ&0x3fff, value[:min(len(value), room)]
		if got := First(AppendAttr(nil, typ, value...), typ); !bytes.Equal(got, value) {
			t.Errorf("attribute %d with %x came back with %x", typ, value, got)
		}
	})
}

// walk checks that attributes lie within b, one behind the other.
func walk(t *testing.T, b []byte) {
	t.Helper()
	total := 0
	for typ, v := range Attrs(b) {
		if total += AttrLen + len(v); total > len(b) {
			t.Fatalf("attributes of %d bytes in %d", total, len(b))
		}
		First(v, typ)
	}
}
