// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestFind: whatever is in a table is found by its key, among keys that are not there,
// and a source in a range by any of its addresses.
func TestFind(t *testing.T) {
	t.Parallel()
	for _, f := range nft.Families {
		lab := netlab.NewT(t)
		conn := open(t, lab.Namespace("node"))
		s := nft.NewSchema(f, options(f)).With(nft.AllFeatures)
		ctx := t.Context()
		lab.Must(conn.Find(ctx, f, []nft.Element{{Set: nft.Services, Key: nft.Key{Addr: address(f, "service", 10), Proto: nft.TCP, Port: 80}}},
			func(e nft.Element, _ uint64) { t.Errorf("without a table there is %s", e) }))
		lab.Must(conn.Reset(ctx, sample(s)))
		var want, keys, listed []string
		var ask []nft.Element
		for e := range sample(s).Elements {
			if e.Set == nft.ServiceCIDRs {
				continue // asked for as a whole
			}
			want = append(want, e.String())
			key := nft.Element{Set: e.Set, Key: e.Key}
			if e.Set.Ranged() {
				last := e.Key.Range.Prefix().Addr()
				key.Key.Range = nft.RangeOf(netip.PrefixFrom(last, last.BitLen()))
			}
			missing := key
			missing.Key.Addr, missing.Key.Port = address(f, "node", 99), 9
			ask = append(ask, missing, key)
		}
		lab.Must(conn.Find(ctx, f, ask, func(e nft.Element, _ uint64) { keys = append(keys, e.String()) }))
		slices.Sort(want)
		slices.Sort(keys)
		if !slices.Equal(want, keys) {
			t.Errorf("found %d of %d:\n%s\nwant\n%s", len(keys), len(want), keys, want)
		}
		for _, set := range nft.Sets {
			lab.Must(conn.List(ctx, f, set, func(e nft.Element, _ uint64) { listed = append(listed, e.String()) }))
		}
		if n := len(want) + 2; len(listed) != n {
			t.Errorf("listed %d elements, want %d", len(listed), n)
		}
	}
}

// TestRemembers: one client is asked for, and how long it is remembered.
func TestRemembers(t *testing.T) {
	t.Parallel()
	lab := netlab.NewT(t)
	n, f := lab.Namespace("node"), nft.IPv4
	conn := open(t, n)
	s := nft.NewSchema(f, options(f)).With(nft.AllFeatures)
	table := sample(s)
	a := table.Affinities[0]
	lab.Must(conn.Reset(t.Context(), table))
	client, to := netip.MustParseAddr("198.51.100.9"), netip.AddrPortFrom(address(f, "pod", 2), 8080)
	lab.Must(n.NFT(fmt.Sprintf("add element ip kube-nft %s { %s timeout 10000s expires 5000s : %s . 8080 }", a.Maps()[1], client, to.Addr())))
	for i, name := range append(a.Maps(), "KUBE-AFFINITY-no/such/tcp") {
		r, ok, err := conn.Remembers(t.Context(), f, name, client)
		lab.Must(err)
		if ok != (i == 1) {
			t.Errorf("%s remembers: %t", name, ok)
		}
		if i == 1 && (r.To != to || r.Timeout != 10_000*time.Second || r.Left > 5000*time.Second || r.Left < 4900*time.Second) {
			t.Errorf("remembered %+v", r)
		}
	}
	if _, ok, err := conn.Remembers(t.Context(), f, a.Maps()[1], netip.MustParseAddr("198.51.100.10")); ok || err != nil {
		t.Errorf("a stranger is remembered: %t, %v", ok, err)
	}
}

// TestDescribeChanged: rules that somebody changed are described as such.
func TestDescribeChanged(t *testing.T) {
	t.Parallel()
	lab := netlab.NewT(t)
	n := lab.Namespace("node")
	conn := open(t, n)
	if _, err := conn.Describe(t.Context(), nft.IPv4); !errors.Is(err, nft.ErrMissing) {
		t.Errorf("without a table: %v", err)
	}
	lab.Must(conn.Reset(t.Context(), sample(nft.NewSchema(nft.IPv4, options(nft.IPv4)))))
	lab.Must(n.NFT("insert rule ip kube-nft OUTPUT drop"))
	if d, err := conn.Describe(t.Context(), nft.IPv4); err != nil || !errors.Is(d.Fault, nft.ErrSchema) || d.Schema.Options != options(nft.IPv4) {
		t.Errorf("a changed table: %v, %v, %+v", err, d.Fault, d.Schema)
	}
	lab.Must(n.NFT("flush chain ip kube-nft KUBE-MARK-MASQ"))
	if _, err := conn.Describe(t.Context(), nft.IPv4); !errors.Is(err, nft.ErrSchema) {
		t.Errorf("a table that marks nothing: %v", err)
	}
	lab.Must(n.NFT(fmt.Sprintf("table ip6 kube-nft {\ncomment %q\n}", "mine")))
	if _, err := conn.Describe(t.Context(), nft.IPv6); !errors.Is(err, nft.ErrForeign) {
		t.Errorf("somebody else's table: %v", err)
	}
}
