// SPDX-License-Identifier: Apache-2.0

package load

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
)

var (
	start = time.Unix(1000, 0)
	web   = view.Name{Namespace: "default", Service: "web", Port: "http", Protocol: nft.TCP}
	podA  = netip.MustParseAddrPort("10.128.0.2:8080")
	podB  = netip.MustParseAddrPort("10.128.0.3:8080")
)

// head makes the element of a frontend; a node port has no address.
func head(set nft.Set, addr string, port uint16, comment string, to nft.Chain) nft.Element {
	e := nft.Element{Set: set, Key: nft.Key{Proto: nft.TCP, Port: port}, Value: nft.Value{Verdict: to, Comment: comment}}
	if addr != "" {
		e.Key.Addr = netip.MustParseAddr(addr)
	}
	return e
}

// counted is a frontend and its counter.
type counted struct {
	element nft.Element
	packets uint64
}

func (m *Meter) reading(second int, all ...counted) *Snapshot {
	m.Begin()
	for _, c := range all {
		m.Add(nft.IPv4, 7, c.element, c.packets)
	}
	m.End(start.Add(time.Duration(second)*time.Second), true)
	return m.Snapshot()
}

func row(t *testing.T, s *Snapshot, name string) *Row {
	t.Helper()
	i := slices.IndexFunc(s.Rows, func(r Row) bool { return r.Name.String() == name })
	if i < 0 {
		t.Fatalf("no row %s in %+v", name, s.Rows)
	}
	return &s.Rows[i]
}

var (
	service  = head(nft.Services, "10.96.0.1", 80, "default/web:http", nft.Chain{Kind: nft.Service, N: 2})
	nodePort = head(nft.NodePorts, "", 30080, "default/web:http", nft.Chain{Kind: nft.NodePort, N: 2})
	refused  = head(nft.NoEndpoints, "10.96.0.2", 80, "default/empty:http", nft.Chain{Kind: nft.Reject})
	local    = head(nft.LocalServices, "192.0.2.1", 80, "default/local:http", nft.Chain{Kind: nft.Drop})
	shortcut = head(nft.Services, "192.0.2.1", 80, "default/local:http", nft.Chain{Kind: nft.Shortcut, N: 1})
)

// TestMeter: rates are of all frontends of a port, from one reading to the next, and
// states are those of the frontend that fares worst.
func TestMeter(t *testing.T) {
	m := New()
	m.reading(0, counted{service, 100}, counted{nodePort, 10}, counted{refused, 0}, counted{local, 5}, counted{shortcut, 1})
	s := m.reading(2, counted{service, 110}, counted{nodePort, 20}, counted{refused, 0}, counted{local, 11}, counted{shortcut, 1})
	if r := row(t, s, "default/web:http"); r.PerSecond != 10 || r.New != 20 || r.State != view.Served || r.Trend[Trend-1] != 10 {
		t.Errorf("web: %+v", r)
	}
	if r := row(t, s, "default/empty:http"); r.State != view.Refused || r.PerSecond != 0 {
		t.Errorf("empty: %+v", r)
	}
	if r := row(t, s, "default/local:http"); r.State != view.Dropped || r.Dropped != 3 || r.PerSecond != 0 {
		t.Errorf("local: %+v", r)
	}
	if s.Refused != 1 || s.Dropped != 1 || s.PerSecond != 10 || s.Open != -1 || !s.Since.Equal(start) {
		t.Errorf("all: %+v", s)
	}
	// The Service without endpoints gets some, and one goes.
	served := head(nft.Services, "10.96.0.2", 80, "default/empty:http", nft.Chain{Kind: nft.Service, N: 1})
	s = m.reading(3, counted{service, 110}, counted{nodePort, 20}, counted{served, 4})
	if r := row(t, s, "default/empty:http"); r.State != view.Served || r.PerSecond != 4 {
		t.Errorf("empty, now served: %+v", r)
	}
	if len(s.Rows) != 2 || s.Refused != 0 || len(m.frontends) != 3 {
		t.Errorf("a Service that is gone is kept: %+v", s.Rows)
	}
}

// TestShares: connections go to the endpoints that conntrack names, by the frontend that
// the client used; those of nobody's frontends are nobody's.
func TestShares(t *testing.T) {
	m := New()
	m.reading(0, counted{service, 0}, counted{nodePort, 0})
	cluster := netip.MustParseAddrPort("10.96.0.1:80")
	node := netip.MustParseAddrPort("203.0.113.7:30080")
	other := netip.MustParseAddrPort("203.0.113.7:30081")
	m.New(Connection{nft.TCP, cluster, podA}, 3)
	m.New(Connection{nft.TCP, node, podA}, 3)
	m.New(Connection{nft.TCP, cluster, podB}, 2)
	m.New(Connection{nft.TCP, other, podB}, 9)
	m.New(Connection{nft.UDP, cluster, podB}, 9)
	m.Open(map[Connection]int{{nft.TCP, cluster, podA}: 2, {nft.TCP, node, podB}: 1, {nft.TCP, other, podB}: 5})
	s := m.reading(2, counted{service, 5}, counted{nodePort, 3})
	r := row(t, s, "default/web:http")
	if r.Busiest != podA || r.Share != 0.75 || r.Open != 3 || s.Open != 3 {
		t.Errorf("%+v, %d open", r, s.Open)
	}
	podC := netip.MustParseAddrPort("10.128.0.4:8080")
	want := []Endpoint{
		{Addr: podA, PerSecond: 3, New: 6, Share: 0.75, Open: 2},
		{Addr: podB, PerSecond: 1, New: 2, Share: 0.25, Open: 1, Left: true},
		{Addr: podC},
	}
	got := m.Endpoints(web, []netip.AddrPort{podA, podC, podA})
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if heads := m.Heads(web); len(heads) != 1 || heads[0].Element != service {
		t.Errorf("heads: %+v", heads)
	}
	// What has no connections any more is forgotten in the end.
	for i := range keepEndpoints + 2 {
		m.reading(3+i, counted{service, 5}, counted{nodePort, 3})
	}
	m.Open(nil)
	if got := m.Endpoints(web, []netip.AddrPort{podC}); len(got) != 1 {
		t.Errorf("endpoints without connections: %+v", got)
	}
}

// TestSelect: words are in the name, the protocol or the state, in any order; equal rows
// stay in the order of their names.
func TestSelect(t *testing.T) {
	s := &Snapshot{}
	for _, r := range []struct {
		name  string
		state view.State
		rate  float64
		open  int
	}{{"a", view.Served, 1, 5}, {"b", view.Refused, 0, 5}, {"c", view.Served, 3, 1}, {"d", view.Served, 3, 9}} {
		s.Rows = append(s.Rows, Row{Name: view.Name{Namespace: "ns", Service: r.name, Protocol: nft.TCP}, State: r.state, PerSecond: r.rate, Open: r.open})
	}
	for _, tt := range []struct {
		text    string
		by      Order
		reverse bool
		want    string
	}{
		{"", ByName, false, "abcd"},
		{"", ByName, true, "dcba"},
		{"", ByRate, false, "cdab"},
		{"", ByOpen, false, "dabc"},
		{"", ByState, false, "bacd"},
		{"REFUSED tcp", ByName, false, "b"},
		{"ns/c", ByName, false, "c"},
		{"udp", ByName, false, ""},
	} {
		got := ""
		for _, r := range s.Select(tt.text, tt.by, tt.reverse) {
			got += r.Service
		}
		if got != tt.want {
			t.Errorf("%q by %s: %s, want %s", tt.text, tt.by, got, tt.want)
		}
	}
	if _, err := ParseOrder("size"); err == nil {
		t.Error("an order that is none")
	}
}
