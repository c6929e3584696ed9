// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
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

// FuzzNames reads any name that the kernel might tell: one that is taken for ours is
// written the same way, so that nothing else is ever touched.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"KUBE-SERVICES", "KUBE-SVC-3", "KUBE-SVC-03", "KUBE-SVC-", "KUBE-XLB-4294967296", "KUBE-REJECT", "drop",
		"KUBE-AFFINITY-default/web/tcp/http", "KUBE-AFFINITY-XLB-SVC-a/b", "KUBE-LEARN-/", "KUBE-LEARN-default/web/tcp/\x1b[2J"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if s, ok := ParseSet(name); ok && s.String() != name {
			t.Errorf("set %q is read as %s", name, s)
		}
		c, ok := ParseChain(name)
		if ok && c.String() != name {
			t.Errorf("chain %q is read as %s", name, c)
		}
		if !ok && c != (Chain{}) {
			t.Errorf("chain %q is not ours, but read as %+v", name, c)
		}
		if c.Returns() && !strings.HasPrefix(c.verdict(), "jump ") {
			t.Errorf("chain %q: verdict %q", name, c.verdict())
		}
		c.Balances()
		c.Needs()
		if port, _, ok := ParseAffinityMap(name); ok {
			a := Affinity{Port: port, Local: true}
			if maps := a.Maps(); maps[0] != name && maps[1] != name {
				t.Errorf("map %q is one of %q", name, maps)
			}
			namespace, service, protocol, last := port.Split()
			if text := port.String(); !strings.HasPrefix(text, namespace+"/"+service) || !strings.Contains(text, protocol) || !strings.HasSuffix(text, last) {
				t.Errorf("%q splits into %q %q %q %q", text, namespace, service, protocol, last)
			}
		}
	})
}

// FuzzComment reads any user data, and writes any comment: it comes back, as far as its
// length goes, and it is one line of text that ends nothing.
func FuzzComment(f *testing.F) {
	f.Add([]byte("\x00\x05web:\x00"), "default/web:http")
	f.Add([]byte{0, 0, 0, 1, 0}, strings.Repeat("long", 40))
	f.Add([]byte{7, 200}, "a\"; add rule ip kube-nft KUBE-SVC-1 accept; \"")
	f.Add([]byte("\x00\x06\x1b[2J\n\x00"), "a\nb\x00c\xff")
	f.Fuzz(func(t *testing.T, data []byte, comment string) {
		for _, text := range []string{DecodeComment(data), DecodeComment(AppendComment(nil, comment))} {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '"' }) {
				t.Errorf("the comment %q is shown as it is", text)
			}
		}
		if len(comment) <= CommentLimit && plain(comment) {
			if got := DecodeComment(AppendComment(nil, comment)); got != comment {
				t.Errorf("comment %q came back as %q", comment, got)
			}
		}
		e := Element{Set: Services, Value: Value{Comment: comment}}
		if n := strings.Count(e.text(), `"`); comment != "" && n != 2 || strings.ContainsAny(e.text(), "\n\x00\x1b") {
			t.Errorf("the comment %q is written as %s", comment, e.text())
		}
	})
}

// plain reports whether a comment is what names of Service ports are made of.
func plain(comment string) bool {
	return !strings.ContainsFunc(comment, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' })
}
