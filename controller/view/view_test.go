// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// web is a Service with every kind of frontend in both families.
func web(change func(*model.Service)) *model.Service {
	s := &model.Service{
		Name:            types.NamespacedName{Namespace: "default", Name: "web"},
		ClusterIPs:      [...]netip.Addr{addr("10.96.0.1"), addr("fd00:10:96::1")},
		ExternalIPs:     []netip.Addr{addr("198.51.100.1"), addr("2001:db8:198::1")},
		LoadBalancerIPs: []netip.Addr{addr("203.0.113.1"), addr("2001:db8:203::1")},
		Ports:           []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80, NodePort: 30080}},
	}
	if change != nil {
		change(s)
	}
	return s
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// pods are endpoints 1 to n of a family; the first one is on this node.
func pods(f model.Family, n int) model.Selection {
	var s model.Selection
	for i := 1; i <= n; i++ {
		a := addr(fmt.Sprintf("10.128.0.%d", i))
		if f == model.IPv6 {
			a = addr(fmt.Sprintf("fd00:10:128::%x", i))
		}
		s.Cluster = append(s.Cluster, netip.AddrPortFrom(a, 8080))
	}
	if n > 0 {
		s.Local, s.Pods = s.Cluster[:1], []netip.Addr{s.Cluster[0].Addr()}
	}
	return s
}

// compiled returns the tables of Services, as they would be read back.
func compiled(o nft.Options, choose func(model.Family) model.Selection, services ...*model.Service) []Table {
	var all []Table
	for _, f := range nft.Families {
		table := compile.NewTable(f)
		table.SetNodeIPs([]netip.Addr{addr("192.0.2.7"), addr("2001:db8::7")})
		for _, s := range services {
			table.Set(s, func(*model.ServicePort) model.Selection { return choose(compile.ModelFamily(f)) })
		}
		table.Settle()
		var c nft.Contents
		for e := range table.All() {
			c.Put(e)
		}
		owned, _ := table.Affinities()
		for _, a := range owned {
			c.PutAffinity(a)
		}
		all = append(all, Table{Schema: nft.NewSchema(f, o), Contents: c, Counters: make(Counters)})
	}
	return all
}

// text is a view in words, a line for each frontend.
func text(v *View) string {
	var b strings.Builder
	for _, p := range v.Ports {
		fmt.Fprintf(&b, "%s %s", p.Name, p.Protocol)
		if a := p.Affinity; a != nil {
			fmt.Fprintf(&b, " sticky %v, %d clients", a.Timeout, a.Clients)
		}
		b.WriteByte('\n')
		for _, f := range p.Frontends {
			fmt.Fprintf(&b, "  %s %s %s:", f.Kind, f.Family, f.String())
			for _, w := range f.Ways() {
				fmt.Fprintf(&b, " %s, %d of %d, masquerade %s", w.State, len(w.Endpoints), w.Draws, w.Masquerade)
				if w.Torn {
					b.WriteString(", torn")
				}
			}
			if f.Restricted {
				fmt.Fprintf(&b, " from %v", f.Sources)
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}

var podsKnown = nft.Options{LocalPods: nft.LocalPods{Interface: "veth*"}}

func TestOf(t *testing.T) {
	local := func(s *model.Service) { s.ExternalLocal = true }
	cases := []struct {
		name      string
		options   nft.Options
		endpoints int
		service   *model.Service
		want      string
	}{
		{"policy Cluster", podsKnown, 2, web(nil), `default/web:http tcp
  ClusterIP ip 10.96.0.1:80: served, 2 of 2, masquerade foreign
  ClusterIP ip6 [fd00:10:96::1]:80: served, 2 of 2, masquerade foreign
  External ip 198.51.100.1:80: served, 2 of 2, masquerade everybody
  External ip 203.0.113.1:80: served, 2 of 2, masquerade everybody
  External ip6 [2001:db8:198::1]:80: served, 2 of 2, masquerade everybody
  External ip6 [2001:db8:203::1]:80: served, 2 of 2, masquerade everybody
  NodePort ip *:30080: served, 2 of 2, masquerade everybody
  NodePort ip6 [*]:30080: served, 2 of 2, masquerade everybody
`},
		{"external policy Local", podsKnown, 9, web(local), `default/web:http tcp
  ClusterIP ip 10.96.0.1:80: served, 9 of 10, masquerade foreign
  ClusterIP ip6 [fd00:10:96::1]:80: served, 9 of 10, masquerade foreign
  External ip 198.51.100.1:80: served, 9 of 10, masquerade foreign served, 1 of 1, masquerade nobody
  External ip 203.0.113.1:80: served, 9 of 10, masquerade foreign served, 1 of 1, masquerade nobody
  External ip6 [2001:db8:198::1]:80: served, 9 of 10, masquerade foreign served, 1 of 1, masquerade nobody
  External ip6 [2001:db8:203::1]:80: served, 9 of 10, masquerade foreign served, 1 of 1, masquerade nobody
  NodePort ip *:30080: served, 9 of 10, masquerade foreign served, 1 of 1, masquerade nobody
  NodePort ip6 [*]:30080: served, 9 of 10, masquerade foreign served, 1 of 1, masquerade nobody
`},
		{"nobody serves, and everybody would be masqueraded", nft.Options{MasqueradeAll: true}, 0, web(local), `default/web:http tcp
  ClusterIP ip 10.96.0.1:80: refused, 0 of 0, masquerade nobody
  ClusterIP ip6 [fd00:10:96::1]:80: refused, 0 of 0, masquerade nobody
  External ip 198.51.100.1:80: refused, 0 of 0, masquerade nobody
  External ip 203.0.113.1:80: refused, 0 of 0, masquerade nobody
  External ip6 [2001:db8:198::1]:80: refused, 0 of 0, masquerade nobody
  External ip6 [2001:db8:203::1]:80: refused, 0 of 0, masquerade nobody
  NodePort ip *:30080: refused, 0 of 0, masquerade nobody
  NodePort ip6 [*]:30080: refused, 0 of 0, masquerade nobody
`},
		{"affinity and source ranges", nft.Options{MasqueradeAll: true}, 3, web(func(s *model.Service) {
			s.ExternalIPs, s.Ports[0].NodePort, s.AffinityTimeout = nil, 0, 3*time.Hour
			s.SourceRanges[model.IPv4] = model.SourceRanges{Restricted: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
			s.SourceRanges[model.IPv6] = model.SourceRanges{Restricted: true}
		}), `default/web:http tcp sticky 3h0m0s, -1 clients
  ClusterIP ip 10.96.0.1:80: served, 3 of 3, masquerade everybody
  ClusterIP ip6 [fd00:10:96::1]:80: served, 3 of 3, masquerade everybody
  External ip 203.0.113.1:80: served, 3 of 3, masquerade everybody from [192.0.2.0/24]
  External ip6 [2001:db8:203::1]:80: served, 3 of 3, masquerade everybody from []
`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			tables := compiled(tc.options, func(f model.Family) model.Selection { return pods(f, tc.endpoints) }, tc.service)
			v := Of(tables...)
			if d := cmp.Diff(tc.want, text(v)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			var want []netip.AddrPort
			for _, f := range []model.Family{model.IPv4, model.IPv6} {
				want = append(want, pods(f, tc.endpoints).Cluster...)
			}
			if d := cmp.Diff(fmt.Sprint(want), fmt.Sprint(v.Ports[0].Endpoints())); d != "" {
				t.Errorf("endpoints (-want +got):\n%s", d)
			}
			if here := v.Here(addr("10.128.0.1")) && !v.Here(addr("10.128.0.2")); here != (tc.endpoints > 0) {
				t.Errorf("the first pod is on this node: %v", here)
			}
			if len(v.NodeAddrs) != 2 || v.Unnamed != 0 {
				t.Errorf("node addresses %v, %d frontends without a name", v.NodeAddrs, v.Unnamed)
			}
		})
	}
}

// TestLocalElsewhere: the internal policy Local drops where no endpoint is here, and
// the external one drops others than pods and the node.
func TestLocalElsewhere(t *testing.T) {
	s := web(func(s *model.Service) { s.ExternalLocal, s.InternalLocal = true, true })
	v := Of(compiled(podsKnown, func(f model.Family) model.Selection {
		return model.Selection{Cluster: pods(f, 2).Cluster}
	}, s)...)
	p := v.Ports[0]
	if cluster := p.Frontends[0]; cluster.State != Dropped || cluster.Worst() != Dropped {
		t.Errorf("ClusterIP: %s", cluster.State)
	}
	external := p.Frontends[2]
	if external.State != Served || external.Local.State != Dropped || external.Worst() != Dropped || p.Worst() != Dropped {
		t.Errorf("external IP: %s, others %s", external.State, external.Local.State)
	}
}

// TestCounters: what was led to endpoints counts as connections, what was dropped
// does not.
func TestCounters(t *testing.T) {
	s := web(func(s *model.Service) { s.ExternalLocal = true })
	tables := compiled(podsKnown, func(f model.Family) model.Selection {
		return model.Selection{Cluster: pods(f, 2).Cluster}
	}, s)
	for set, n := range map[nft.Set]uint64{nft.Services: 3, nft.NodePorts: 5, nft.LocalServices: 1000, nft.LocalNodePorts: 1000} {
		for key, value := range tables[0].Contents.Elements[set] {
			tables[0].Counters.Add(1, nft.Element{Set: set, Key: key, Value: value}, n)
		}
	}
	v := Of(tables...)
	if n := v.Ports[0].Connections(); n != 3*3+5 {
		t.Errorf("%d connections, want 14", n)
	}
	if n := v.Ports[0].Frontends[2].Local.Packets; n != 1000 {
		t.Errorf("%d packets were dropped, want 1000", n)
	}
}

// TestClients: the family with most clients counts, and a full map is called full.
func TestClients(t *testing.T) {
	s := web(func(s *model.Service) { s.AffinityTimeout = time.Hour })
	tables := compiled(podsKnown, func(f model.Family) model.Selection { return pods(f, 1) }, s)
	owner := nft.PortOf("default/web/tcp/http")
	tables[0].Clients = map[nft.Port]int{owner: 7}
	tables[1].Clients = map[nft.Port]int{owner: nft.AffinitySize}
	a := Of(tables...).Ports[0].Affinity
	if a.Clients != nft.AffinitySize || !a.Full() {
		t.Errorf("%+v", a)
	}
	tables[1].Clients = nil
	if a = Of(tables...).Ports[0].Affinity; a.Clients != 7 || a.Full() {
		t.Errorf("%+v", a)
	}
}

// TestDamaged: what does not fit together is said, and nothing breaks.
func TestDamaged(t *testing.T) {
	choose := func(f model.Family) model.Selection { return pods(f, 4) }
	key := nft.Key{Addr: addr("10.96.0.1"), Proto: nft.TCP, Port: 80}
	slot := func(n uint32) nft.Key { k := key; k.Slot = n; return k }
	for name, damage := range map[string]func(*nft.Contents){
		"an endpoint in the middle": func(c *nft.Contents) { delete(c.Elements[nft.Endpoints], slot(1)) },
		"the last endpoint":         func(c *nft.Contents) { delete(c.Elements[nft.Endpoints], slot(3)) },
		"a verdict of our own to nowhere": func(c *nft.Contents) {
			c.Elements[nft.Services][key] = nft.Value{Comment: "default/web:http"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			tables := compiled(podsKnown, choose, web(nil))
			damage(&tables[0].Contents)
			p := Of(tables...).Ports[0]
			if !p.Torn() && p.Worst() != Unknown {
				t.Errorf("nothing is said: %+v", p.Frontends[0])
			}
		})
	}
	tables := compiled(podsKnown, choose, web(nil))
	tables[0].Contents.Elements[nft.Services][key] = nft.Value{Comment: "what is this", Verdict: nft.Chain{Kind: nft.Service, N: 4}}
	if v := Of(tables...); v.Unnamed != 1 || v.Ports[0].Torn() {
		t.Errorf("%d frontends without a name; torn %v", v.Unnamed, v.Ports[0].Torn())
	}
}

// TestWithoutEndpoints: tables whose endpoints were not read tell all the rest.
func TestWithoutEndpoints(t *testing.T) {
	tables := compiled(podsKnown, func(f model.Family) model.Selection { return pods(f, 3) }, web(nil))
	for i := range tables {
		tables[i].Contents.Elements[nft.Endpoints], tables[i].Contents.Elements[nft.NodePortEndpoints] = nil, nil
	}
	p := Of(tables...).Ports[0]
	if p.Torn() || p.Frontends[0].Endpoints != nil || p.Frontends[0].Draws != 3 || p.Worst() != Served {
		t.Errorf("%+v", p.Frontends[0])
	}
}

func TestNameOf(t *testing.T) {
	for comment, want := range map[string]string{
		"default/web:http": "default/web:http",
		"default/web":      "default/web",
		"web":              "", "": "", "/web": "", "default/": "",
	} {
		n, ok := NameOf(nft.Element{Value: nft.Value{Comment: comment}})
		if ok != (want != "") || ok && n.String() != want {
			t.Errorf("%q: %v %v", comment, n, ok)
		}
	}
}
