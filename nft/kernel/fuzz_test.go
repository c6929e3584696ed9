// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// described is what the kernel is told of a whole table, which reads much like what it
// tells: the seeds of what follows.
func described(f *testing.F) []byte {
	f.Helper()
	s := nft.NewSchema(nft.IPv4, nft.Options{Counters: true}).With(nft.AllFeatures)
	var b batch
	b.reset(nft.TableName)
	a := nft.Affinity{Port: nft.PortOf("default/web/tcp/http"), Proto: nft.TCP, Timeout: 60, Local: true, Ways: nft.Ways(0).With(nft.AffinityService)}
	if err := b.declare(s); err != nil {
		f.Fatal(err)
	}
	if err := b.own(s, []nft.AffinityChange{{Is: a}}); err != nil {
		f.Fatal(err)
	}
	if err := b.chain(s, s.Dynamic(nft.Chain{Kind: nft.Service, N: 2})); err != nil {
		f.Fatal(err)
	}
	return b.buf
}

// FuzzInventory reads what the kernel might say of sets, chains and rules, and compares
// it with a schema: nothing panics, and what is not exactly ours is no table of ours.
func FuzzInventory(f *testing.F) {
	whole := described(f)
	f.Add(whole, true)
	f.Add(whole[:len(whole)/2], false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, in []byte, all bool) {
		found := newInventory()
		_, _ = messages(in, func(h unix.NlMsghdr, body []byte) bool {
			if len(body) < wire.FamilyLen {
				return true
			}
			body = body[wire.FamilyLen:]
			switch h.Type & 0xff {
			case unix.NFT_MSG_NEWSET:
				found.addSet(body)
			case unix.NFT_MSG_NEWCHAIN:
				found.chains[wire.String(wire.First(body, unix.NFTA_CHAIN_NAME))] = body
			case unix.NFT_MSG_NEWRULE:
				found.addRule(body)
			}
			return true
		})
		features := found.features()
		if all {
			features = nft.AllFeatures
		}
		s := nft.NewSchema(nft.IPv4, nft.Options{Counters: true}).With(features)
		contents, err := found.compare(s)
		if err != nil {
			return
		}
		for name := range found.chains {
			if c, ok := nft.ParseChain(name); ok && c.String() != name {
				t.Errorf("chain %q is taken for %s", name, c)
			}
		}
		if contents.Features != s.Features || len(found.sets) < len(s.Sets()) {
			t.Errorf("%d sets are taken for a table of %d", len(found.sets), len(s.Sets()))
		}
	})
}

// FuzzElements reads what dumps might say of elements and of remembered clients, in
// every set: nothing panics, and ranges are prefixes that do not overlap.
func FuzzElements(f *testing.F) {
	var b batch
	for _, family := range nft.Families {
		for _, e := range samples(family) {
			b.clear(nft.TableName)
			b.element(unix.NFT_MSG_NEWSETELEM, family, &e, nil)
			f.Add(uint8(e.Set), b.buf)
		}
	}
	b.clear(nft.TableName)
	b.entry(unix.NFT_MSG_NEWSETELEM, nft.IPv4, entry{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddrPort("10.0.0.1:80"), 60_000, 50_000})
	f.Add(uint8(0), b.buf)
	f.Fuzz(func(t *testing.T, number uint8, list []byte) {
		set := nft.Sets[int(number)%len(nft.Sets)]
		for _, family := range nft.Families {
			var bounds boundaries
			var contents nft.Contents
			for _, v := range wire.Attrs(list) {
				if e, err := decodeEntry(family, v); err == nil {
					e.retimed(1000)
				}
				e, _, err := decodeElement(family, set, v)
				if err != nil {
					continue
				}
				if set.Verdict() && e.Value.Verdict.Kind != 0 {
					checkVerdict(t, e.Value.Verdict)
				}
				if a := e.Key.Range.Prefix().Addr(); set.Ranged() && !set.Concatenated() && a.IsValid() {
					bounds.add(a, wire.U32(wire.First(v, unix.NFTA_SET_ELEM_FLAGS))&unix.NFT_SET_ELEM_INTERVAL_END != 0)
				}
			}
			if bounds.ranges(family, set, &contents) == nil {
				checkDisjoint(t, contents.Elements[set])
			}
		}
	})
}

// samples is an element of each kind.
func samples(f nft.Family) []nft.Element {
	a := netip.MustParseAddr("10.96.0.10")
	if f == nft.IPv6 {
		a = netip.MustParseAddr("fd00:96::10")
	}
	frontend := nft.Key{Addr: a, Proto: nft.TCP, Port: 80}
	slot, ranged := frontend, frontend
	slot.Slot, ranged.Range = 2, nft.RangeOf(netip.PrefixFrom(a, a.BitLen()-4))
	return []nft.Element{
		{Set: nft.Services, Key: frontend, Value: nft.Value{Verdict: nft.Chain{Kind: nft.Service, N: 3}, Comment: "default/web:http"}},
		{Set: nft.LocalServices, Key: frontend, Value: nft.Value{Verdict: nft.Chain{Kind: nft.Drop}}},
		{Set: nft.Services, Key: frontend, Value: nft.Value{Verdict: nft.Chain{Kind: nft.AffinityService, Port: nft.PortOf("default/web/tcp")}}},
		{Set: nft.Endpoints, Key: slot, Value: nft.Value{To: netip.AddrPortFrom(a, 8080)}},
		{Set: nft.LoopBack, Key: nft.Key{Addr: a}},
		{Set: nft.SourceRanges, Key: ranged},
		{Set: nft.ServiceCIDRs, Key: nft.Key{Range: ranged.Range}},
	}
}

func checkVerdict(t *testing.T, c nft.Chain) {
	t.Helper()
	if again, ok := nft.ParseChain(c.String()); c.Kind != nft.Drop && (!ok || again != c) {
		t.Errorf("a verdict leads to %s, which is read as %+v", c, again)
	}
}

func checkDisjoint(t *testing.T, elements map[nft.Key]nft.Value) {
	t.Helper()
	for k := range elements {
		for o := range elements {
			if p, q := k.Range.Prefix(), o.Range.Prefix(); k != o && p.Overlaps(q) && p.Addr() != q.Addr() {
				t.Errorf("%s and %s overlap", p, q)
			}
		}
	}
}

// FuzzNotifications reads what the kernel might tell to those who listen: a message
// twice, and the end of the transaction.
func FuzzNotifications(f *testing.F) {
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWTABLE), wire.AppendAttr([]byte{unix.NFPROTO_IPV4, 0, 0, 0}, unix.NFTA_TABLE_NAME, []byte("kube-nft\x00")...))
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN), []byte{0, 0, 0, 1})
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWSETELEM), added(0, 3)[wire.HeaderLen:])
	f.Add(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN), generation("nft")[wire.HeaderLen:])
	f.Add(uint16(0), []byte{})
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		var w hearing
		for range 2 {
			if got, ok := w.message(header{Type: typ}, data); ok {
				t.Errorf("the end of nothing touches %+v", got.Touched)
			}
		}
		got, ok := w.message(header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN}, make([]byte, wire.FamilyLen))
		if ok != (len(got.Touched) > 0) || len(got.Touched) > 1 {
			t.Errorf("one table is %+v", got.Touched)
		}
		for _, touched := range got.Touched {
			if touched.Family != nft.Family(data[0]) || len(touched.Elements) > 2*len(data) || len(touched.Sets) > 1 {
				t.Errorf("%x touches %+v", data, touched)
			}
		}
		_, _, _ = decodeError(header{Flags: typ}, data)
	})
}
