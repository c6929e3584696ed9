// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// withAffinity is a schema with everything in it.
func withAffinity(f nft.Family) *nft.Schema {
	return nft.NewSchema(f, options(f)).With(nft.AllFeatures)
}

// TestLook: elements are found by key, whatever is missing between them, and sets of
// ranges as a whole.
func TestLook(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn := open(t, ns)
	s := withAffinity(nft.IPv4)
	lab.Must(conn.Reset(ctx, sample(s)))
	var keys []nft.Element
	for i := range uint32(40) {
		keys = append(keys, nft.Element{Set: nft.Endpoints, Key: slot(i, "10.0.0.1:1").Key})
	}
	keys = append(keys, nft.Element{Set: nft.ClusterIPs, Key: nft.Key{Addr: netip.MustParseAddr("10.96.0.10")}},
		nft.Element{Set: nft.ClusterIPs, Key: nft.Key{Addr: netip.MustParseAddr("10.96.9.9")}})
	lab.Must(ns.NFT("delete element ip kube-nft KUBE-SEP { 10.96.0.10 . udp . 53 . 1 }\n" +
		"add element ip kube-nft KUBE-SEP { 10.96.0.10 . udp . 53 . 39 : 10.9.9.9 . 9 }"))
	have, err := conn.Look(ctx, s, keys, []nft.Set{nft.ServiceCIDRs, nft.SourceRanges})
	lab.Must(err)
	var got []string
	for _, e := range have.Sorted() {
		got = append(got, e.String())
	}
	want := []string{
		"KUBE-SEP { 10.96.0.10 . udp . 53 . 0 : 10.128.1.2 . 53 }",
		"KUBE-SEP { 10.96.0.10 . udp . 53 . 2 : 10.128.1.4 . 53 }",
		"KUBE-SEP { 10.96.0.10 . udp . 53 . 39 : 10.9.9.9 . 9 }",
		"KUBE-LOAD-BALANCER-SOURCE-CIDR { 192.0.2.80 . tcp . 80 . 203.0.113.0/24 }",
		"KUBE-LOAD-BALANCER-SOURCE-CIDR { 192.0.2.81 . tcp . 80 . 203.0.113.14 }",
		"KUBE-LOAD-BALANCER-SOURCE-CIDR { 192.0.2.82 . tcp . 80 . 203.0.0.0/17 }",
		"KUBE-CLUSTER-IP { 10.96.0.10 }",
		"KUBE-SERVICE-CIDR { 10.96.0.0/12 }",
		"KUBE-SERVICE-CIDR { 192.0.2.0/24 }",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	lab.Must(ns.NFT("delete table ip kube-nft"))
	if have, err := conn.Look(ctx, s, keys, nil); err != nil || have.Len() != 0 {
		t.Errorf("of no table there are %d elements, %v", have.Len(), err)
	}
}

// TestInspect: it counts, and sees what Read sees but elements.
func TestInspect(t *testing.T) {
	lab, ns, conn, s := programmed(t)
	lab.Must(ns.NFT("add element ip kube-nft KUBE-NODE-IP { 192.0.2.66 }"))
	whole, err := conn.Read(ctx, s)
	lab.Must(err)
	contents, counts, err := conn.Inspect(ctx, s)
	lab.Must(err)
	if d := cmp.Diff(whole.Counts(), counts); d != "" {
		t.Errorf("counts (-Read +Inspect):\n%s", d)
	}
	if d := cmp.Diff(whole.Chains, contents.Chains, cmp.Comparer(func(a, b nft.Chain) bool { return a == b })); d != "" {
		t.Errorf("chains (-Read +Inspect):\n%s", d)
	}
	lab.Must(ns.NFT("insert rule ip kube-nft PREROUTING accept"))
	if _, _, err := conn.Inspect(ctx, s); err == nil || !strings.Contains(err.Error(), "PREROUTING") {
		t.Errorf("a foreign rule: %v", err)
	}
}
