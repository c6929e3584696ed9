// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// TestRumours: however much is heard before the loop looks, what is remembered is
// bounded, and nothing is forgotten that matters.
func TestRumours(t *testing.T) {
	r := newRumours()
	many := func(first, n int) (all []nft.Element) {
		for i := first; i < first+n; i++ {
			all = append(all, nft.Element{Set: nft.ClusterIPs, Key: nft.Key{Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}})
		}
		return all
	}
	hear := func(name string, of nft.Touched) {
		of.Family = nft.IPv4
		r.hear(nft.Foreign{By: nft.Process{PID: 7, Name: name}, Touched: []nft.Touched{of}})
	}
	hear("a", nft.Touched{Elements: many(0, 10)})
	hear("a", nft.Touched{Elements: many(5, 10), Sets: []nft.Set{nft.ServiceCIDRs}})
	hear("b", nft.Touched{Clients: []nft.Port{nft.PortOf("default/web/tcp")}})
	h := r.take()
	got := h.tables[nft.IPv4]
	if len(got.places) != 15 || len(got.ranges) != 1 || len(got.clients) != 1 || got.whole() || got.by.Name != "b" || h.commits["a"] != 2 {
		t.Errorf("%+v of %v", got, h.commits)
	}
	if all := got.elements(); len(all) != 15 || !slices.IsSortedFunc(all, nft.Element.Compare) {
		t.Errorf("neighbours are apart: %v", all)
	}
	if r.take().tables[nft.IPv4] != nil {
		t.Error("it is told twice")
	}
	for i := range 5 {
		hear("a", nft.Touched{Elements: many(i*10_000, 10_000)})
	}
	got = r.take().tables[nft.IPv4]
	if !got.whole() || got.places != nil || got.what() != "many elements" {
		t.Errorf("of 50,000 elements %d are remembered", len(got.places))
	}
	hear("a", nft.Touched{Constant: "a rule in chain PREROUTING", Elements: many(0, 3)})
	hear("a", nft.Touched{Elements: many(0, 3)})
	first := r.take().tables[nft.IPv4]
	later := touched{since: time.Now(), by: nft.Process{Name: "c"}}
	first.merge(later)
	if !first.whole() || first.places != nil || first.what() != "a rule in chain PREROUTING" || first.by.Name != "c" || !first.since.Before(later.since) {
		t.Errorf("%+v", first)
	}
	// What was told of is not missed, and whoever did it is not forgotten for what was.
	first.merge(touched{since: time.Now(), missed: true})
	missed := touched{since: time.Now(), missed: true}
	missed.merge(later)
	if first.missed || first.by.Name != "c" || missed.missed || missed.by.Name != "c" {
		t.Errorf("%+v, %+v", first, missed)
	}
}
