// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// Table is what was read of one family's table.
type Table struct {
	// Schema has the table's family and options; who is masqueraded follows from
	// them.
	Schema *nft.Schema
	// Contents may lack sets of endpoints, and then does not tell of them.
	Contents nft.Contents
	// Counters may be nil.
	Counters Counters
	// Clients counts those that are remembered; nil if the kernel does not tell.
	Clients map[nft.Port]int
}

// Counter names what counts: a frontend in one of the maps that have counters.
type Counter struct {
	Set nft.Set
	Key nft.Key
}

// Counters are the packets that frontends have counted.
type Counters map[Counter]uint64

// Add notes what one frontend has counted, as nft/kernel.Conn.Connections tells it.
func (c Counters) Add(_ uint64, e nft.Element, packets uint64) {
	if e.Set.Counted() {
		c[Counter{e.Set, e.Key}] = packets
	}
}

// Of puts the tables of all families together.
func Of(tables ...Table) *View {
	v := &View{here: make(map[netip.Addr]struct{})}
	b := builder{view: v, ports: make(map[Name]*ServicePort)}
	for _, t := range tables {
		b.table(t)
	}
	v.Ports = make([]ServicePort, 0, len(b.ports))
	for _, p := range b.ports {
		slices.SortFunc(p.Frontends, compareFrontends)
		v.Ports = append(v.Ports, *p)
	}
	slices.SortFunc(v.Ports, func(a, b ServicePort) int { return a.Name.Compare(b.Name) })
	slices.SortFunc(v.NodeAddrs, netip.Addr.Compare)
	return v
}

func compareFrontends(a, b Frontend) int {
	return cmp.Or(
		cmp.Compare(a.Kind, b.Kind),
		cmp.Compare(a.Family, b.Family),
		a.Addr.Compare(b.Addr),
		cmp.Compare(a.Port, b.Port),
	)
}

type builder struct {
	view  *View
	ports map[Name]*ServicePort
}

// frontendSets are the maps that every frontend is in one of: those who are served,
// and those who are not.
var frontendSets = [...]nft.Set{nft.Services, nft.NodePorts, nft.NoEndpoints, nft.NoEndpointsNodePorts}

// localOf is where the frontends of a map are once more under the external policy
// Local; ok is false if they never are.
func localOf(set nft.Set) (local nft.Set, ok bool) {
	switch set {
	case nft.Services:
		return nft.LocalServices, true
	case nft.NodePorts:
		return nft.LocalNodePorts, true
	}
	return 0, false
}

func (b *builder) table(t Table) {
	for key := range t.Contents.Elements[nft.NodeIPs] {
		b.view.NodeAddrs = append(b.view.NodeAddrs, key.Addr)
	}
	for key := range t.Contents.Elements[nft.LoopBack] {
		b.view.here[key.Addr] = struct{}{}
	}
	sources := rangesOf(t.Contents)
	for _, set := range frontendSets {
		localSet, twice := localOf(set)
		for key, value := range t.Contents.Elements[set] {
			p := b.port(nft.Element{Set: set, Key: key, Value: value})
			if p == nil {
				b.view.Unnamed++
				continue
			}
			f := Frontend{Family: t.Schema.Family, Addr: key.Addr, Port: key.Port}
			f.Kind = kindOf(t.Contents, set, key)
			f.Way = wayOf(t, p, set, key, value)
			if local, ok := t.Contents.Elements[localSet][key]; ok && twice {
				w := wayOf(t, p, localSet, key, local)
				f.Local = &w
			}
			_, f.Restricted = t.Contents.Elements[nft.Firewall][key]
			f.Sources = sources[key]
			p.affinity(t, value.Verdict.Port)
			p.Frontends = append(p.Frontends, f)
		}
	}
}

// port finds whose a frontend is, nil if it does not say so.
func (b *builder) port(e nft.Element) *ServicePort {
	name, ok := NameOf(e)
	if !ok {
		return nil
	}
	p := b.ports[name]
	if p == nil {
		p = &ServicePort{Name: name}
		b.ports[name] = p
	}
	return p
}

// affinity notes what a port owns that remembers its clients.
func (p *ServicePort) affinity(t Table, owner nft.Port) {
	a, ok := t.Contents.Affinities[owner]
	if !ok || owner == (nft.Port{}) {
		return
	}
	if p.Affinity == nil {
		p.Affinity = &Affinity{Timeout: time.Duration(a.Timeout) * time.Second, Clients: -1}
	}
	if t.Clients != nil {
		p.Affinity.Clients = max(p.Affinity.Clients, t.Clients[owner])
	}
}

// kindOf is what a frontend is: chains tell, or for want of them the set of cluster IPs.
func kindOf(c nft.Contents, set nft.Set, key nft.Key) Kind {
	if set == nft.NodePorts || set == nft.NoEndpointsNodePorts {
		return NodePort
	}
	if _, ok := c.Elements[nft.ClusterIPs][nft.Key{Addr: key.Addr}]; ok {
		return ClusterIP
	}
	return External
}

// wayOf is where an element of a verdict map leads.
func wayOf(t Table, p *ServicePort, set nft.Set, key nft.Key, value nft.Value) Way {
	w := Way{Packets: t.Counters[Counter{set, key}]}
	to := value.Verdict
	if to.Returns() {
		to = t.Contents.Elements[set.FallbackOf()][key].Verdict
	}
	switch {
	case to.Kind == nft.Reject:
		w.State = Refused
	case to.Kind == nft.Drop:
		w.State = Dropped
	case to.N > 0:
		w.State, w.Draws = Served, to.N
		w.Masquerade = masquerade(t.Schema, to.Kind)
		w.read(t, p, set, key)
	default:
		w.State = Unknown
	}
	return w
}

// read reads the endpoints of a way.
func (w *Way) read(t Table, p *ServicePort, frontends nft.Set, key nft.Key) {
	set, ok := frontends.EndpointsOf()
	if !ok || t.Contents.Elements[set] == nil {
		return
	}
	all := make([]netip.AddrPort, 0, w.Draws)
	for key.Slot = range w.Draws {
		e, ok := t.Contents.Elements[set][key]
		switch {
		case !ok:
			continue
		case int(key.Slot) > len(all): // slots are dense
			w.Torn = true
		}
		all = append(all, e.To)
	}
	w.Torn = w.Torn || nft.Modulus(len(all)) != w.Draws
	w.Endpoints = p.share(all)
}

// share returns the same endpoints of another frontend, if there are such.
func (p *ServicePort) share(all []netip.AddrPort) []netip.AddrPort {
	for i := range p.Frontends {
		for _, w := range p.Frontends[i].Ways() {
			if w.Endpoints != nil && slices.Equal(w.Endpoints, all) {
				return w.Endpoints
			}
		}
	}
	return all
}

// masquerade says who is masqueraded by a kind of chain (nft.Schema, way).
func masquerade(s *nft.Schema, k nft.ChainKind) Masquerade {
	switch k {
	case nft.Local, nft.LocalNodePort:
		return Nobody
	case nft.Service:
		switch {
		case s.Options.MasqueradeAll:
			return Everybody
		case s.Options.LocalPods.Known():
			return Foreign
		}
		return Nobody
	case nft.Shortcut, nft.NodePortShortcut:
		if s.Options.LocalPods.Known() {
			return Foreign
		}
	}
	return Everybody
}

// rangesOf lists the sources that frontends let in, sorted.
func rangesOf(c nft.Contents) map[nft.Key][]netip.Prefix {
	all := make(map[nft.Key][]netip.Prefix)
	for key := range c.Elements[nft.SourceRanges] {
		r := key.Range
		key.Range = nft.Range{}
		all[key] = append(all[key], r.Prefix())
	}
	for _, prefixes := range all {
		slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
			return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
		})
	}
	return all
}
