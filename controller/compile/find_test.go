// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// TestFind: what is found by key, by Service and by set of ranges is what the table holds,
// no more and no less.
func TestFind(t *testing.T) {
	table := NewTable(nft.IPv4)
	table.SetServiceCIDRs([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.97.0.0/16")})
	table.SetNodeIPs([]netip.Addr{netip.MustParseAddr("203.0.113.7")})
	var all []*model.Service
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		s := newService(name, int64(i), "192.0.2.1") // "a" has it
		s.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i/2 + 10)})}
		s.Ports[0].NodePort = uint16(30000 + i)
		s.SourceRanges[model.IPv4] = model.SourceRanges{Restricted: i < 3, Prefixes: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("198.51.%d.0/24", i)), netip.MustParsePrefix("203.0.113.0/28")}}
		s.AffinityTimeout = time.Duration(i%2) * time.Hour
		s.ExternalLocal = i > 1
		all = append(all, s)
		table.Set(s, func(*model.ServicePort) model.Selection {
			return model.Selection{Cluster: endpoints(i, i+1, i+2), Local: endpoints(i + 1), Pods: []netip.Addr{netip.AddrFrom4([4]byte{10, 128, 0, byte(i + 1)})}}
		})
	}
	table.Settle()
	compare := func(what string, want, got []nft.Element) {
		t.Helper()
		texts := func(all []nft.Element) (texts []string) {
			slices.SortFunc(all, nft.Element.Compare)
			for _, e := range slices.Compact(all) {
				texts = append(texts, e.String())
			}
			return texts
		}
		if d := cmp.Diff(texts(want), texts(got)); d != "" {
			t.Errorf("%s (-table +found):\n%s", what, d)
		}
	}
	want := slices.Collect(table.All())
	found := slices.Collect(table.NodeElements())
	for _, s := range all {
		found = slices.AppendSeq(found, table.Needed(s.Name))
	}
	compare("needed", want, found)
	for set := range nft.Set(len(nft.Sets)) {
		var in []nft.Element
		for _, e := range want {
			if e.Set == set {
				in = append(in, e)
			}
		}
		if !set.Ranged() {
			continue
		}
		if len(in) == 0 {
			t.Errorf("%s is empty", set)
		}
		compare(set.String(), in, slices.Collect(table.InRanges(set)))
	}
	for _, e := range want {
		if v, ok := table.Find(e.Set, e.Key); !e.Set.Ranged() && (!ok || v != e.Value) {
			t.Errorf("%s: found %v, %t", e, v, ok)
		}
		if e.Key.Port += 7; !e.Set.Ranged() {
			if v, ok := table.Find(e.Set, e.Key); ok {
				t.Errorf("%s: found %v", e, v)
			}
		}
	}
}
