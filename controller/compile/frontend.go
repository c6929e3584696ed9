// SPDX-License-Identifier: Apache-2.0

// Package compile turns Services and their selected endpoints into elements of
// the table. It is pure, and the only place where it is decided what a Service
// looks like in nftables.
package compile

import (
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// Frontend is what a client addresses: a service address, or without an address
// a node port.
type Frontend struct {
	Addr  netip.Addr
	Proto nft.Proto
	Port  uint16
}

// NodePort reports whether the frontend is a node port.
func (f Frontend) NodePort() bool { return !f.Addr.IsValid() }

// String names the frontend as a client would.
func (f Frontend) String() string {
	if f.NodePort() {
		return "node port " + itoa(f.Port) + "/" + f.Proto.String()
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String() + "/" + f.Proto.String()
}

func (f Frontend) key() nft.Key { return nft.Key{Addr: f.Addr, Proto: f.Proto, Port: f.Port} }

// Kind says what a Service calls a frontend. Lower kinds win over higher ones
// when two Services claim the same frontend.
type Kind uint8

// The kinds of frontends.
const (
	_ Kind = iota
	ClusterIP
	LoadBalancerIP
	ExternalIP
	NodePort
)

// String returns the kind's name.
func (k Kind) String() string {
	return [...]string{"none", "cluster IP", "load balancer IP", "external IP", "node port"}[k]
}

// chain returns where connections to a frontend of the kind go.
func (k Kind) chain(endpoints int) nft.Chain {
	c := nft.Chain{Kind: nft.External, N: nft.Modulus(endpoints)}
	switch k {
	case ClusterIP:
		c.Kind = nft.Service
	case NodePort:
		c.Kind = nft.NodePort
	}
	return c
}

// program is what the table holds for a frontend: where it leads. The zero
// program is none at all. Slots are never changed in place.
type program struct {
	kind    Kind
	slots   []netip.AddrPort
	comment string
}

// verdict is the element that says what the frontend is.
func (p program) verdict(f Frontend) (nft.Element, bool) {
	e := nft.Element{Key: f.key(), Value: nft.Value{Comment: p.comment}}
	switch {
	case p.kind == 0:
		return e, false
	case len(p.slots) == 0:
		e.Set, e.Value.Verdict = nft.NoEndpoints, nft.Chain{Kind: nft.Reject}
		if f.NodePort() {
			e.Set = nft.NoEndpointsNodePorts
		}
	default:
		e.Set, e.Value.Verdict = nft.Services, p.kind.chain(len(p.slots))
		if f.NodePort() {
			e.Set = nft.NodePorts
		}
	}
	return e, true
}

// slot is the element of one endpoint.
func (p program) slot(f Frontend, i int) nft.Element {
	e := nft.Element{Set: nft.Endpoints, Key: f.key(), Value: nft.Value{To: p.slots[i]}}
	e.Key.Slot = uint32(i)
	if f.NodePort() {
		e.Set = nft.NodePortEndpoints
	}
	return e
}

// elements yields everything that the table holds for a frontend.
func (p program) elements(f Frontend, yield func(nft.Element) bool) bool {
	for i := range p.slots {
		if !yield(p.slot(f, i)) {
			return false
		}
	}
	v, ok := p.verdict(f)
	return !ok || yield(v)
}

// count adds the program's elements to a number of elements.
func (p program) count(n *nft.Counts, f Frontend) {
	if v, ok := p.verdict(f); ok {
		n[v.Set]++
	}
	if len(p.slots) > 0 {
		n[p.slot(f, 0).Set] += len(p.slots)
	}
}

// replace adds to a delta what turns the program before into the program after.
func replace(d *nft.Delta, f Frontend, before, after program) {
	for i := range max(len(before.slots), len(after.slots)) {
		inBefore, inAfter := i < len(before.slots), i < len(after.slots)
		if inBefore && inAfter && before.slots[i] == after.slots[i] {
			continue
		}
		if inBefore {
			d.Delete = append(d.Delete, before.slot(f, i))
		}
		if inAfter {
			d.Add = append(d.Add, after.slot(f, i))
		}
	}
	old, had := before.verdict(f)
	next, has := after.verdict(f)
	if had && has && old == next {
		return
	}
	if had {
		d.Delete = append(d.Delete, old)
	}
	if has {
		d.Add = append(d.Add, next)
	}
}

// assign gives each endpoint a slot, so that as few slots as possible change:
// endpoints that stay keep theirs, new ones fill the holes of those that left,
// and holes that remain are filled from the end. It returns old itself if nothing
// changed, and otherwise leaves it alone. want has no duplicates and is sorted.
func assign(old, want []netip.AddrPort) []netip.AddrPort {
	if len(old) == 0 {
		return want
	}
	stays := make([]bool, len(want))
	slots := make([]netip.AddrPort, len(old), max(len(old), len(want)))
	var holes []int
	for i, e := range old {
		at, ok := slices.BinarySearchFunc(want, e, netip.AddrPort.Compare)
		if ok && !stays[at] {
			stays[at] = true
			slots[i] = e
		} else {
			holes = append(holes, i)
		}
	}
	if len(holes) == 0 && len(old) == len(want) {
		return old
	}
	for i, e := range want {
		switch {
		case stays[i]:
		case len(holes) > 0:
			slots[holes[0]] = e
			holes = holes[1:]
		default:
			slots = append(slots, e)
		}
	}
	for _, hole := range holes {
		for len(slots) > 0 && !slots[len(slots)-1].IsValid() {
			slots = slots[:len(slots)-1]
		}
		if hole >= len(slots) {
			break
		}
		slots[hole] = slots[len(slots)-1]
		slots = slots[:len(slots)-1]
	}
	return slots
}

// frontends lists the frontends of a Service port in a family: none if the
// Service has no ClusterIP of it, as in kube-proxy.
func frontends(s *model.Service, p *model.ServicePort, family model.Family) []bound {
	if !s.ClusterIPs[family].IsValid() {
		return nil
	}
	proto := nft.Proto(p.Protocol)
	all := []bound{{Frontend{s.ClusterIPs[family], proto, p.Port}, ClusterIP}}
	for _, a := range s.LoadBalancerIPs {
		if model.FamilyOf(a) == family {
			all = append(all, bound{Frontend{a, proto, p.Port}, LoadBalancerIP})
		}
	}
	for _, a := range s.ExternalIPs {
		if model.FamilyOf(a) == family {
			all = append(all, bound{Frontend{a, proto, p.Port}, ExternalIP})
		}
	}
	if p.NodePort != 0 {
		all = append(all, bound{Frontend{Proto: proto, Port: p.NodePort}, NodePort})
	}
	return all
}

// bound is a frontend as a Service port has it.
type bound struct {
	Frontend
	kind Kind
}
