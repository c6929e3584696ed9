// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"testing"
)

// FuzzDecodeKey reads any bytes as the key, the end of a range, the data and the client
// of each set's elements: what can be read is what was written.
func FuzzDecodeKey(f *testing.F) {
	f.Add(uint8(Services), []byte{10, 96, 0, 10, 17, 0, 0, 0, 0, 53, 0, 0}, []byte{10, 128, 1, 2, 0, 53, 0, 0})
	f.Add(uint8(SourceRanges), []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 192, 0, 2, 0}, []byte{10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0, 192, 0, 2, 255})
	f.Add(uint8(ServiceCIDRs), make([]byte, 16), bytes.Repeat([]byte{0xff}, 16))
	f.Add(uint8(LoopBack), []byte{10, 0, 0, 1, 10, 0, 0, 2}, []byte{})
	f.Fuzz(func(t *testing.T, set uint8, key, other []byte) {
		s := Set(set % uint8(numSets))
		for _, family := range Families {
			if k, err := DecodeKey(key, family, s); err == nil {
				// Padding is not kept: reading again must give the same.
				again, err := DecodeKey(AppendKey(nil, family, s, k), family, s)
				if err != nil || again != k {
					t.Errorf("%s %s: %+v came back as %+v, %v", family, s, k, again, err)
				}
				if s.Ranged() {
					checkRange(t, family, s, k, other)
				}
			}
			if !s.HoldsEndpoints() {
				continue
			}
			if v, err := DecodeData(other, family, s); err == nil {
				if again, err := DecodeData(AppendData(nil, family, s, v), family, s); err != nil || again != v {
					t.Errorf("%s %s: %+v came back as %+v, %v", family, s, v, again, err)
				}
			}
		}
		for _, family := range Families {
			if a, err := DecodeClient(key, family); err == nil && !bytes.Equal(AppendClient(nil, a), key) {
				t.Errorf("client %x came back as %x", key, AppendClient(nil, a))
			}
		}
	})
}

// checkRange reads the end of a range whose beginning is k.
func checkRange(t *testing.T, f Family, s Set, k Key, end []byte) {
	t.Helper()
	whole, err := DecodeKeyEnd(k, end, f, s)
	if err != nil {
		return
	}
	first := k.Range.Prefix().Addr()
	if p := whole.Range.Prefix(); p.Addr() != first || p != p.Masked() {
		t.Errorf("%s %s: a range from %s is %s", f, s, first, p)
	}
	if again, ends := AppendKeyEnd(nil, f, s, whole); ends {
		if back, err := DecodeKeyEnd(k, again, f, s); err != nil || back != whole {
			t.Errorf("%s %s: %+v came back as %+v, %v", f, s, whole, back, err)
		}
	}
}
