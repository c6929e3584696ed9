// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"hash/crc32"
	"testing"
)

func TestSCTPRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    sctpPacket
	}{
		{"init", sctpPacket{src: 1, dst: 2, chunk: chunkInit, initTag: 3}},
		{"init ack", sctpPacket{src: 1, dst: 2, tag: 9, chunk: chunkInitAck, initTag: 3, cookie: "name 10.0.0.1:1\n"}},
		{"padded", sctpPacket{src: 1, dst: 2, tag: 9, chunk: chunkInitAck, initTag: 3, cookie: "a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got sctpPacket
			if err := got.unmarshal(tt.p.marshal()); err != nil || got != tt.p {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.p)
			}
			for i := range tt.p.marshal() {
				b := tt.p.marshal()
				b[i] ^= 1
				if got.unmarshal(b) == nil {
					t.Errorf("accepted with a flipped bit in byte %d", i)
				}
			}
		})
	}
}

// sealed returns a packet of the given bytes after the common header, with the
// right checksum.
func sealed(chunk ...byte) []byte {
	b := append(make([]byte, sctpHeaderLen), chunk...)
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

func TestSCTPUnmarshal(t *testing.T) {
	abort := []byte{chunkAbort, 0, 0, 4}
	for _, tt := range []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"abort", sealed(abort...), true},
		{"second chunk is ignored", sealed(append(abort, 11, 0, 0, 4)...), true},
		{"empty", nil, false},
		{"no chunk", sealed(), false},
		{"half a chunk header", sealed(chunkAbort, 0), false},
		{"chunk shorter than its header", sealed(chunkAbort, 0, 0, 3), false},
		{"chunk longer than the packet", sealed(chunkAbort, 0, 0, 5), false},
		{"short init", sealed(chunkInit, 0, 0, 4), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p sctpPacket
			if err := p.unmarshal(tt.in); (err == nil) != tt.ok {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

func FuzzSCTPUnmarshal(f *testing.F) {
	f.Add(sctpPacket{chunk: chunkInitAck, cookie: "a"}.marshal()[sctpHeaderLen:])
	f.Fuzz(func(_ *testing.T, chunk []byte) {
		var p sctpPacket
		_ = p.unmarshal(sealed(chunk...))
	})
}
