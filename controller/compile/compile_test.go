// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

func endpoints(ids ...int) []netip.AddrPort {
	var all []netip.AddrPort
	for _, id := range ids {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 128, byte(id >> 8), byte(id)}), 8080))
	}
	return all
}

func TestAssign(t *testing.T) {
	cases := []struct {
		name            string
		old, want, slot []int
	}{
		{"first", nil, []int{1, 2, 3}, []int{1, 2, 3}},
		{"same", []int{3, 1, 2}, []int{1, 2, 3}, []int{3, 1, 2}},
		{"one more", []int{3, 1}, []int{1, 2, 3}, []int{3, 1, 2}},
		{"last moves into the hole", []int{3, 1, 2}, []int{1, 2}, []int{2, 1}},
		{"last goes", []int{3, 1, 2}, []int{1, 3}, []int{3, 1}},
		{"swap", []int{3, 1, 2}, []int{2, 3, 4}, []int{3, 4, 2}},
		{"all others", []int{1, 2}, []int{3, 4, 5}, []int{3, 4, 5}},
		{"first and last go", []int{1, 2, 3, 4}, []int{2, 3}, []int{3, 2}},
		{"none left", []int{1, 2}, nil, nil},
		{"twice in the kernel", []int{1, 1, 2}, []int{1, 2}, []int{1, 2}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got := assign(endpoints(tc.old...), endpoints(tc.want...))
			if !slices.Equal(got, endpoints(tc.slot...)) {
				t.Errorf("assign = %v, want %v", got, endpoints(tc.slot...))
			}
		})
	}
}

// TestAssignProperty: exactly the wanted endpoints, no holes, and no endpoint
// that stays moves unless its slot is above the new number.
func TestAssignProperty(t *testing.T) {
	set := rapid.SliceOfNDistinct(rapid.IntRange(0, 40), 0, 30, rapid.ID[int])
	rapid.Check(t, func(t *rapid.T) {
		old := endpoints(set.Draw(t, "old")...)
		before := slices.Clone(old)
		ids := set.Draw(t, "want")
		slices.Sort(ids)
		want := endpoints(ids...)
		got := assign(old, want)
		if !slices.Equal(old, before) {
			t.Fatal("the old slots were changed in place")
		}
		sorted := slices.Clone(got)
		slices.SortFunc(sorted, netip.AddrPort.Compare)
		if !slices.Equal(sorted, want) {
			t.Fatalf("slots hold %v, want %v", sorted, want)
		}
		for i, e := range before {
			if i < len(got) && slices.Contains(want, e) && got[i] != e {
				t.Fatalf("%v left slot %d for no reason: %v -> %v", e, i, before, got)
			}
		}
	})
}

func newService(name string, created int64, external string) *model.Service {
	s := &model.Service{
		Name:    types.NamespacedName{Namespace: "default", Name: name},
		Created: created,
		Ports:   []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
	}
	s.ClusterIPs[model.IPv4] = netip.AddrFrom4([4]byte{10, 96, 0, name[0]})
	if external != "" {
		s.ExternalIPs = []netip.Addr{netip.MustParseAddr(external)}
	}
	return s
}

func selecting(ids ...int) func(*model.ServicePort) model.Selection {
	return func(*model.ServicePort) model.Selection { return model.Selection{Cluster: endpoints(ids...)} }
}

// owner finds who has a frontend.
func owner(t *Table, addr string) string {
	for e := range t.All() {
		if (e.Set == nft.Services || e.Set == nft.NoEndpoints) && e.Key.Addr.String() == addr {
			return e.Value.Comment
		}
	}
	return ""
}

func TestClaims(t *testing.T) {
	table := NewTable(nft.IPv4)
	table.Settle()
	young, old := newService("a", 200, "192.0.2.1"), newService("b", 100, "192.0.2.1")
	table.Set(young, selecting(1))
	table.TakeDelta()
	if got := owner(table, "192.0.2.1"); got != "default/a:http" {
		t.Fatalf("alone: %q", got)
	}
	table.Set(old, selecting(2))
	_, conflicts := table.TakeDelta()
	if got := owner(table, "192.0.2.1"); got != "default/b:http" {
		t.Fatalf("the oldest has not won: %q", got)
	}
	if len(conflicts) != 1 || conflicts[0].Loser != "default/a:http" || conflicts[0].Winner != "default/b:http" {
		t.Fatalf("conflicts = %+v", conflicts)
	}
	clash := newService("c", 900, "")
	clash.ClusterIPs[model.IPv4] = netip.MustParseAddr("192.0.2.1")
	table.Set(clash, selecting(3))
	table.TakeDelta()
	if got := owner(table, "192.0.2.1"); got != "default/c:http" {
		t.Fatalf("a cluster IP has not won over external IPs: %q", got)
	}
	var losers []string
	for c := range table.EachConflict() {
		losers = append(losers, c.Service.Name)
	}
	if slices.Sort(losers); !slices.Equal(losers, []string{"a", "b"}) || table.Conflicts() != 1 {
		t.Errorf("losers are %q of %d frontends", losers, table.Conflicts())
	}
	// Not even another port of a cluster IP is for an external IP to take.
	sly := newService("d", 50, "192.0.2.1")
	sly.Ports[0].Port = 81
	table.Set(sly, selecting(4))
	_, conflicts = table.TakeDelta()
	if len(conflicts) != 1 || conflicts[0].Loser != "default/d:http" || conflicts[0].Winner != "default/c" {
		t.Fatalf("conflicts = %+v", conflicts)
	}
	if n := table.Counts()[nft.Services]; n != 4 {
		t.Errorf("%d frontends, want the cluster IPs alone", n)
	}
	table.Delete(clash.Name)
	if d, _ := table.TakeDelta(); !slices.ContainsFunc(d.Add, func(e nft.Element) bool {
		return e.Set == nft.Services && e.Key.Port == 81 && e.Key.Addr.String() == "192.0.2.1"
	}) {
		t.Errorf("the external IP has not come with the cluster IP gone: %v", d.Add)
	}
	table.Delete(sly.Name)
	table.Delete(old.Name)
	delta, _ := table.TakeDelta()
	if got := owner(table, "192.0.2.1"); got != "default/a:http" {
		t.Fatalf("the loser has not taken over: %q", got)
	}
	if delta.Empty() {
		t.Error("taking over changed nothing")
	}
	table.Delete(young.Name)
	table.TakeDelta()
	if n := table.Conflicts(); n != 0 {
		t.Errorf("an empty table has %d conflicts", n)
	}
	if n := len(collect(table)); n != 0 || table.Counts() != (nft.Counts{}) {
		t.Errorf("an empty table holds %d elements and counts %v", n, table.Counts())
	}
}

func collect(t *Table) []string {
	var all []string
	for e := range t.Sorted() {
		all = append(all, e.String())
	}
	return all
}

// TestDelta shows what single changes cost: elements that need not change do not.
func TestDelta(t *testing.T) {
	table := NewTable(nft.IPv4)
	table.Settle()
	s := newService("w", 1, "192.0.2.1")
	step := func(ids ...int) (text []string) {
		table.Set(s, selecting(ids...))
		d, _ := table.TakeDelta()
		for _, c := range d.Chains {
			text = append(text, "+ "+c.String())
		}
		for _, e := range d.Delete {
			text = append(text, "- "+e.String())
		}
		for _, e := range d.Add {
			text = append(text, "+ "+e.String())
		}
		return text
	}
	check := func(name string, got []string, want ...string) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if got := step(1, 2); len(got) != 9 {
		t.Errorf("first: %q", got)
	}
	check("nothing", step(1, 2))
	check("swap", step(1, 3),
		"- KUBE-SEP { 10.96.0.119 . tcp . 80 . 1 : 10.128.0.2 . 8080 }",
		"- KUBE-SEP { 192.0.2.1 . tcp . 80 . 1 : 10.128.0.2 . 8080 }",
		"+ KUBE-SEP { 10.96.0.119 . tcp . 80 . 1 : 10.128.0.3 . 8080 }",
		"+ KUBE-SEP { 192.0.2.1 . tcp . 80 . 1 : 10.128.0.3 . 8080 }")
	check("one less", step(3),
		`+ KUBE-EXT-1`,
		`- KUBE-SEP { 10.96.0.119 . tcp . 80 . 0 : 10.128.0.1 . 8080 }`,
		`- KUBE-SEP { 10.96.0.119 . tcp . 80 . 1 : 10.128.0.3 . 8080 }`,
		`- KUBE-SERVICES { 10.96.0.119 . tcp . 80 comment "default/w:http" : goto KUBE-SVC-2 }`,
		`- KUBE-SEP { 192.0.2.1 . tcp . 80 . 0 : 10.128.0.1 . 8080 }`,
		`- KUBE-SEP { 192.0.2.1 . tcp . 80 . 1 : 10.128.0.3 . 8080 }`,
		`- KUBE-SERVICES { 192.0.2.1 . tcp . 80 comment "default/w:http" : goto KUBE-EXT-2 }`,
		`+ KUBE-SEP { 10.96.0.119 . tcp . 80 . 0 : 10.128.0.3 . 8080 }`,
		`+ KUBE-SERVICES { 10.96.0.119 . tcp . 80 comment "default/w:http" : goto KUBE-SVC-1 }`,
		`+ KUBE-SEP { 192.0.2.1 . tcp . 80 . 0 : 10.128.0.3 . 8080 }`,
		`+ KUBE-SERVICES { 192.0.2.1 . tcp . 80 comment "default/w:http" : goto KUBE-EXT-1 }`)
	if got := step(); len(got) != 6 {
		t.Errorf("none left: %q", got)
	}
}

// TestCrowded: the verdict stays while the modulus does.
func TestCrowded(t *testing.T) {
	table := NewTable(nft.IPv4)
	table.Settle()
	var ids []int
	verdicts := 0
	for n := range 1000 {
		ids = append(ids, n)
		table.Set(newService("w", 1, ""), selecting(ids...))
		d, _ := table.TakeDelta()
		if slices.ContainsFunc(d.Add, func(e nft.Element) bool { return e.Set.Verdict() }) {
			verdicts++
		}
		if len(d.Add)+len(d.Delete) > 4 {
			t.Fatalf("endpoint %d: %d elements", n, len(d.Add)+len(d.Delete))
		}
	}
	if verdicts > 4+30+16*4 {
		t.Errorf("%d verdicts changed for 1000 endpoints", verdicts)
	}
}

func ExampleFrontend_String() {
	fmt.Println(Frontend{netip.MustParseAddr("fd00::1"), nft.UDP, 53}, Frontend{Proto: nft.TCP, Port: 30080})
	// Output: [fd00::1]:53/udp node port 30080/tcp
}

// TestAffinityIsData: what a Service port with affinity owns does not depend on its
// endpoints: one map, asked once, however many there are (F7).
func TestAffinityIsData(t *testing.T) {
	table := NewTable(nft.IPv4)
	table.Settle()
	s := newService("w", 1, "192.0.2.1")
	s.AffinityTimeout = 3 * time.Hour
	table.Set(s, selecting(1, 2))
	first, _ := table.TakeDelta()
	if len(first.Affinities) != 1 || len(first.Affinities[0].Is.Maps()) != 1 {
		t.Fatalf("with two endpoints: %+v", first.Affinities)
	}
	var ids []int
	for id := range 500 {
		ids = append(ids, id+1)
	}
	table.Set(s, selecting(ids...))
	if d, _ := table.TakeDelta(); len(d.Affinities) != 0 || len(d.Keep) != 0 {
		t.Errorf("with 498 more: %+v, %+v", d.Affinities, d.Keep)
	}
	table.Set(s, selecting(ids[1:]...))
	if d, _ := table.TakeDelta(); len(d.Affinities) != 0 || len(d.Keep) != 1 {
		t.Errorf("with one less: %+v, and clients of %d Service ports to go through", d.Affinities, len(d.Keep))
	}
}
