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

// program is what the table holds for a frontend: where it leads. The zero
// program is none at all. Slots are never changed in place.
//
//	policy   kind        clients                 lead to
//	Cluster  all         everybody               slots, in KUBE-SERVICES or KUBE-NODEPORTS
//	Local    cluster IP  everybody               local, in KUBE-SERVICES
//	Local    others      local pods, this node   slots, in KUBE-SERVICES or KUBE-NODEPORTS
//	                     everybody else          local, in KUBE-XLB or KUBE-XLB-NODEPORTS
type program struct {
	kind    Kind
	policy  policy
	slots   []netip.AddrPort // of all endpoints
	local   []netip.AddrPort // of those on this node, if the policy is Local
	comment string
}

// policy is a traffic policy.
type policy bool

const (
	policyCluster policy = false
	policyLocal   policy = true
)

// lead is one half of a program: a verdict, and the endpoints that it leads to.
type lead struct {
	set   nft.Set // of the verdict; its endpoints are in the set that belongs to it
	chain nft.ChainKind
	slots []netip.AddrPort
}

// leads returns the program's halves; the second one only exists for an external
// frontend under the policy Local.
func (p program) leads() (all [2]lead, n int) {
	if p.kind == 0 {
		return all, 0
	}
	served, refused := nft.Services, nft.NoEndpoints
	if p.kind == NodePort {
		served, refused = nft.NodePorts, nft.NoEndpointsNodePorts
	}
	slots := p.slots
	if p.policy == policyLocal && p.kind == ClusterIP {
		slots = p.local
	}
	switch {
	case len(p.slots) == 0:
		return [2]lead{{set: refused, chain: nft.Reject}}, 1
	case len(slots) == 0:
		// There are endpoints, but none here: not this node's to refuse.
		return [2]lead{{set: refused, chain: nft.Drop}}, 1
	}
	all[0] = lead{served, p.way(), slots}
	if p.policy == policyCluster || p.kind == ClusterIP {
		return all, 1
	}
	all[1] = lead{nft.LocalServices, nft.Local, p.local}
	if p.kind == NodePort {
		all[1].set, all[1].chain = nft.LocalNodePorts, nft.LocalNodePort
	}
	if len(p.local) == 0 {
		all[1].chain = nft.Drop
	}
	return all, 2
}

// way is the kind of chain that leads to all endpoints.
func (p program) way() nft.ChainKind {
	switch {
	case p.kind == ClusterIP:
		return nft.Service
	case p.kind == NodePort && p.policy == policyLocal:
		return nft.NodePortShortcut
	case p.kind == NodePort:
		return nft.NodePort
	case p.policy == policyLocal:
		return nft.Shortcut
	}
	return nft.External
}

// verdict is the element that says where a frontend leads.
func (l lead) verdict(f Frontend, comment string) nft.Element {
	e := nft.Element{Set: l.set, Key: f.key(), Value: nft.Value{Comment: comment}}
	e.Value.Verdict = l.to()
	return e
}

// to is the chain that the lead's verdict goes to.
func (l lead) to() nft.Chain {
	c := nft.Chain{Kind: l.chain}
	if len(l.slots) > 0 {
		c.N = nft.Modulus(len(l.slots))
	}
	return c
}

// slot is the element of one endpoint.
func (l lead) slot(f Frontend, i int) nft.Element {
	set, _ := l.set.EndpointsOf()
	e := nft.Element{Set: set, Key: f.key(), Value: nft.Value{To: l.slots[i]}}
	e.Key.Slot = uint32(i)
	return e
}

// elements yields everything that the table holds for a frontend.
func (p program) elements(f Frontend, yield func(nft.Element) bool) bool {
	leads, n := p.leads()
	for _, l := range leads[:n] {
		for i := range l.slots {
			if !yield(l.slot(f, i)) {
				return false
			}
		}
		if !yield(l.verdict(f, p.comment)) {
			return false
		}
	}
	return true
}

// count adds the program's elements to a number of elements.
func (p program) count(n *nft.Counts) {
	leads, k := p.leads()
	for _, l := range leads[:k] {
		n[l.set]++
		if set, ok := l.set.EndpointsOf(); ok {
			n[set] += len(l.slots)
		}
	}
}

// chains adds the chains that the program leads to.
func (p program) chains(used map[nft.Chain]struct{}) {
	leads, n := p.leads()
	for _, l := range leads[:n] {
		if c := l.to(); !c.Constant() {
			used[c] = struct{}{}
		}
	}
}

// replace adds to a delta what turns the program before into the program after.
func replace(d *nft.Delta, f Frontend, before, after program) {
	old, n := before.leads()
	next, m := after.leads()
	for i := range max(n, m) {
		replaceLead(d, f, old[i], next[i], before.comment, after.comment, i < n, i < m)
	}
}

// replaceLead does so for one half. Halves of different kinds share nothing.
func replaceLead(d *nft.Delta, f Frontend, old, next lead, was, is string, had, has bool) {
	if had && has && old.set != next.set {
		replaceLead(d, f, old, lead{}, was, "", true, false)
		replaceLead(d, f, lead{}, next, "", is, false, true)
		return
	}
	for i := range max(len(old.slots), len(next.slots)) {
		before, after := i < len(old.slots), i < len(next.slots)
		if before && after && old.slots[i] == next.slots[i] {
			continue
		}
		if before {
			d.Delete = append(d.Delete, old.slot(f, i))
		}
		if after {
			d.Add = append(d.Add, next.slot(f, i))
		}
	}
	if had && has && old.verdict(f, was) == next.verdict(f, is) {
		return
	}
	if had {
		d.Delete = append(d.Delete, old.verdict(f, was))
	}
	if has {
		d.Add = append(d.Add, next.verdict(f, is))
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
