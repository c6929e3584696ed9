// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestModulus(t *testing.T) {
	for n, want := range map[int]uint32{1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 6, 9: 10, 10: 10, 63: 64, 64: 64, 65: 68, 129: 136, 1000: 1024} {
		if got := Modulus(n); got != want {
			t.Errorf("Modulus(%d) = %d, want %d", n, got, want)
		}
	}
	seen := make(map[uint32]bool)
	last := uint32(0)
	for n := 1; n <= 1<<17; n++ {
		m := Modulus(n)
		switch {
		case int(m) < n:
			t.Fatalf("Modulus(%d) = %d leaves endpoints without a draw", n, m)
		case m < last:
			t.Fatalf("Modulus(%d) = %d, less than %d before", n, m, last)
		case n > 64 && (int(m)-n)*17 > int(m) || int(m)-n > 1 && n <= 64:
			t.Fatalf("Modulus(%d) = %d: too many draws miss", n, m)
		}
		seen[m], last = true, m
	}
	if len(seen) > 4+30+16*11+1 {
		t.Errorf("%d different moduli up to %d", len(seen), 1<<17)
	}
}

func TestChainNames(t *testing.T) {
	for _, c := range []Chain{{Kind: Service, N: 1}, {Kind: Service, N: 64}, {Kind: External, N: 68}, {Kind: NodePort, N: 100352}, {Kind: Reject},
		{Kind: AffinityService, Port: PortOf("default/web/tcp/http")}, {Kind: AffinityLocal, Port: PortOf("default/web/udp")},
		{Kind: AffinityServiceLocal, Port: PortOf("svl/web/tcp")}, {Kind: Learn, Port: PortOf("default/web/tcp/http")}} {
		got, ok := ParseChain(c.String())
		if !ok || got != c {
			t.Errorf("ParseChain(%q) = %v, %t", c, got, ok)
		}
	}
	for _, name := range []string{"", "KUBE-SVC-", "KUBE-SVC-0", "KUBE-SVC-007", "KUBE-SVC-x", "KUBE-SVC-4294967296", "KUBE-REJECT-1", "kube-svc-1",
		"KUBE-AFFINITY-", "KUBE-AFFINITY-XLB", "KUBE-AFFINITY-SERVICES", "KUBE-LEARN-INPUT", "KUBE-LEARN-web"} {
		if c, ok := ParseChain(name); ok {
			t.Errorf("ParseChain(%q) = %v, want none", name, c)
		}
	}
}

func TestSizes(t *testing.T) {
	var counts Counts
	counts[Endpoints] = 300_000
	sizes := SizesFor(counts)
	if !sizes.Hold(counts) || sizes[Endpoints] != 393_216 || sizes[Services] != minSize {
		t.Errorf("SizesFor = %v", sizes)
	}
	counts[Endpoints] = int(sizes[Endpoints]) + 1
	if sizes.Hold(counts) {
		t.Error("a full set holds one more")
	}
}

// FuzzElement encodes and decodes the element that the input describes.
func FuzzElement(f *testing.F) {
	f.Add(uint8(Endpoints), true, []byte{10, 0, 0, 1}, uint8(TCP), uint16(80), uint32(3), uint16(8080), "default/web:http")
	f.Add(uint8(LoopBack), false, []byte{1, 2, 3}, uint8(SCTP), uint16(1), uint32(1<<31), uint16(0), strings.Repeat("x", 200))
	f.Fuzz(func(t *testing.T, set uint8, four bool, addr []byte, proto uint8, port uint16, slot uint32, to uint16, comment string) {
		s, family := Set(set%uint8(numSets)), IPv6
		if four {
			family = IPv4
		}
		var raw [16]byte
		copy(raw[:], addr)
		e := Element{Set: s}
		for _, fl := range layouts[s].key {
			switch fl {
			case fieldDaddr, fieldSaddr:
				e.Key.Addr = family.addrFromBytes(raw[:family.addrLen()])
			case fieldProto:
				e.Key.Proto = Proto(proto)
			case fieldPort:
				e.Key.Port = port
			case fieldSlot:
				e.Key.Slot = slot
			case fieldDaddrRange, fieldSaddrRange:
				a := family.addrFromBytes(raw[:family.addrLen()])
				e.Key.Range = RangeOf(netip.PrefixFrom(a, int(slot)%(a.BitLen()+1)))
			}
		}
		if layouts[s].data != nil {
			e.Value.To = netip.AddrPortFrom(family.addrFromBytes(raw[:family.addrLen()]), to)
		}
		key, err := DecodeKey(AppendKey(nil, family, s, e.Key), family, s)
		if end, ends := []byte(nil), false; s.Ranged() {
			if end, ends = AppendKeyEnd(nil, family, s, e.Key); ends {
				key, err = DecodeKeyEnd(key, end, family, s)
			} else {
				key = e.Key
			}
		}
		if err != nil || key != e.Key {
			t.Errorf("key %+v came back as %+v, %v", e.Key, key, err)
		}
		if layouts[s].data != nil {
			v, err := DecodeData(AppendData(nil, family, s, e.Value), family, s)
			if err != nil || v != e.Value {
				t.Errorf("data %+v came back as %+v, %v", e.Value, v, err)
			}
		}
		want := printable(comment[:min(len(comment), CommentLimit)])
		if got := DecodeComment(AppendComment(nil, comment)); got != want {
			t.Errorf("comment %q came back as %q", want, got)
		}
		if _, err := DecodeKey(addr, family, s); err == nil && uint32(len(addr)) != s.Type(family).KeyLen {
			t.Errorf("%d bytes pass as a key of %s", len(addr), s)
		}
		DecodeComment(addr)
	})
}

func TestDiff(t *testing.T) {
	key := func(slot uint32) Key {
		return Key{Addr: netip.MustParseAddr("10.96.0.1"), Proto: TCP, Port: 80, Slot: slot}
	}
	to := func(s string) Value { return Value{To: netip.MustParseAddrPort(s)} }
	var have Contents
	have.Put(Element{Endpoints, key(0), to("10.0.0.1:1")})
	have.Put(Element{Endpoints, key(1), to("10.0.0.2:1")})
	have.Put(Element{Endpoints, key(2), to("10.0.0.3:1")})
	have.PutChain(Chain{Kind: Service, N: 3})
	d := NewDiff(have)
	d.Want(Element{Endpoints, key(0), to("10.0.0.1:1")})
	d.Want(Element{Endpoints, key(1), to("10.0.0.3:1")})
	d.WantChain(Chain{Kind: Service, N: 2})
	d.WantChain(Chain{Kind: Service, N: 1})
	d.Rest()
	var script strings.Builder
	if err := d.Delta.Format(&script, NewSchema(IPv4, Options{})); err != nil {
		t.Fatal(err)
	}
	want := `add chain ip kube-nft KUBE-SVC-2
add rule ip kube-nft KUBE-SVC-2 dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @KUBE-SEP
add rule ip kube-nft KUBE-SVC-2 goto KUBE-SVC-1
delete element ip kube-nft KUBE-SEP { 10.96.0.1 . tcp . 80 . 1 : 10.0.0.2 . 1 }
delete element ip kube-nft KUBE-SEP { 10.96.0.1 . tcp . 80 . 2 : 10.0.0.3 . 1 }
add element ip kube-nft KUBE-SEP { 10.96.0.1 . tcp . 80 . 1 : 10.0.0.3 . 1 }
`
	if script.String() != want {
		t.Errorf("delta:\n%s\nwant:\n%s", script.String(), want)
	}
}

// TestDiffRanges: a new range takes away those that it overlaps, and no others, in
// the same delta: the kernel would not take it beside them.
func TestDiffRanges(t *testing.T) {
	element := func(addr, prefix string) Element {
		return Element{Set: SourceRanges, Key: Key{
			Addr: netip.MustParseAddr(addr), Proto: TCP, Port: 80, Range: RangeOf(netip.MustParsePrefix(prefix)),
		}}
	}
	var have Contents
	for _, e := range []Element{
		element("192.0.2.1", "10.0.0.0/16"), element("192.0.2.1", "10.1.0.0/16"), element("192.0.2.1", "10.2.0.0/15"),
		element("192.0.2.2", "10.0.0.0/16"),
	} {
		have.Put(e)
	}
	d := NewDiff(have)
	d.Want(element("192.0.2.1", "10.2.1.0/24"))
	d.Want(element("192.0.2.1", "10.0.0.0/15"))
	slices.SortFunc(d.Delta.Delete, Element.Compare)
	want := []Element{
		element("192.0.2.1", "10.0.0.0/16"), element("192.0.2.1", "10.1.0.0/16"), element("192.0.2.1", "10.2.0.0/15"),
	}
	if !slices.Equal(d.Delta.Delete, want) {
		t.Errorf("deleted %v, want %v", d.Delta.Delete, want)
	}
	d.Delta = Delta{}
	d.Rest()
	if want := []Element{element("192.0.2.2", "10.0.0.0/16")}; !slices.Equal(d.Delta.Delete, want) {
		t.Errorf("the rest is %v, want %v", d.Delta.Delete, want)
	}
}

// TestDiffAffinity: what a Service port loses goes with the rest.
func TestDiffAffinity(t *testing.T) {
	web := Affinity{Port: PortOf("default/web/tcp"), Proto: TCP, Timeout: 10}
	was, is, wide := web, web, web
	was.Ways = was.Ways.With(AffinityExternal)
	is.Ways = is.Ways.With(AffinityLocal)
	is.Local, is.Timeout = true, 20
	wide.Ways = is.Ways.With(AffinityExternal)
	wide.Local, wide.Timeout = true, 20
	for _, c := range []struct {
		was, is     Affinity
		first, last []AffinityChange
	}{
		{was, was, nil, nil},
		{Affinity{}, was, []AffinityChange{{Is: was}}, nil},
		{was, is, []AffinityChange{{was, wide}}, []AffinityChange{{wide, is}}},
		{wide, is, nil, []AffinityChange{{wide, is}}},
		{was, wide, []AffinityChange{{was, wide}}, nil},
	} {
		var have Contents
		if c.was != (Affinity{}) {
			have.PutAffinity(c.was)
		}
		d := NewDiff(have)
		d.WantAffinity(c.is)
		first := d.Delta.Affinities
		d.Delta = Delta{}
		d.Rest()
		if last := d.Delta.Affinities; !slices.Equal(first, c.first) || !slices.Equal(last, c.last) {
			t.Errorf("from %+v to %+v: first %+v, then %+v", c.was, c.is, first, last)
		}
	}
}
