// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/nft"
)

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
	// owner is the Service port that remembers its clients, if it does.
	owner nft.Port
	// sources are those that are let in to a load balancer IP; nil is everybody.
	sources *sources
}

// sources are ranges that a load balancer lets in.
type sources struct{ prefixes []netip.Prefix }

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
	// affinity is the kind of chain that looks for the client's endpoint before.
	affinity nft.ChainKind
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
	way, affinity := p.way()
	all[0] = lead{served, way, slots, affinity}
	if p.policy == policyCluster || p.kind == ClusterIP {
		return all, 1
	}
	all[1] = lead{nft.LocalServices, nft.Local, p.local, nft.AffinityLocal}
	if p.kind == NodePort {
		all[1].set, all[1].chain = nft.LocalNodePorts, nft.LocalNodePort
	}
	if len(p.local) == 0 {
		all[1].chain, all[1].affinity = nft.Drop, 0
	}
	return all, 2
}

// way is the kind of chain that leads to all endpoints, and the kind of the one
// before it if clients are remembered.
func (p program) way() (chain, affinity nft.ChainKind) {
	switch {
	case p.kind == ClusterIP && p.policy == policyLocal:
		return nft.Service, nft.AffinityServiceLocal
	case p.kind == ClusterIP:
		return nft.Service, nft.AffinityService
	case p.kind == NodePort && p.policy == policyLocal:
		return nft.NodePortShortcut, nft.AffinityShortcut
	case p.kind == NodePort:
		return nft.NodePort, nft.AffinityExternal
	case p.policy == policyLocal:
		return nft.Shortcut, nft.AffinityShortcut
	}
	return nft.External, nft.AffinityExternal
}

// to is the chain that the lead's verdict goes to, for clients without affinity.
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

// head appends all that the table holds for a frontend but its endpoints.
func (p program) head(f Frontend, all []nft.Element) []nft.Element {
	leads, n := p.leads()
	learns := false
	for _, l := range leads[:n] {
		e := nft.Element{Set: l.set, Key: f.key(), Value: nft.Value{Verdict: l.to(), Comment: p.comment}}
		if p.owner != (nft.Port{}) && l.affinity != 0 {
			learns = true
			all = append(all, nft.Element{Set: l.set.FallbackOf(), Key: e.Key, Value: nft.Value{Verdict: l.to()}})
			e.Value.Verdict = nft.Chain{Kind: l.affinity, Port: p.owner}
		}
		all = append(all, e)
	}
	if learns {
		e := nft.Element{Set: nft.LearnServices, Key: f.key(), Value: nft.Value{Verdict: nft.Chain{Kind: nft.Learn, Port: p.owner}}}
		if f.NodePort() {
			e.Set = nft.LearnNodePorts
		}
		all = append(all, e)
	}
	if p.sources == nil || p.kind != LoadBalancerIP {
		return all
	}
	all = append(all, nft.Element{Set: nft.Firewall, Key: f.key()})
	for _, prefix := range p.sources.prefixes {
		e := nft.Element{Set: nft.SourceRanges, Key: f.key()}
		e.Key.Range = nft.RangeOf(prefix)
		all = append(all, e)
	}
	return all
}

// fewHeads is room for the elements of an ordinary frontend beside its endpoints.
const fewHeads = 8

// elements yields everything that the table holds for a frontend.
func (p program) elements(f Frontend, yield func(nft.Element) bool) bool {
	leads, n := p.leads()
	for _, l := range leads[:n] {
		for i := range l.slots {
			if !yield(l.slot(f, i)) {
				return false
			}
		}
	}
	var room [fewHeads]nft.Element
	for _, e := range p.head(f, room[:0]) {
		if !yield(e) {
			return false
		}
	}
	return true
}

// count adds the program's elements to a number of elements.
func (p program) count(f Frontend, n *nft.Counts) {
	leads, k := p.leads()
	for _, l := range leads[:k] {
		if set, ok := l.set.EndpointsOf(); ok {
			n[set] += len(l.slots)
		}
	}
	var room [fewHeads]nft.Element
	for _, e := range p.head(f, room[:0]) {
		n[e.Set]++
	}
}

// chains adds the chains that the program leads to.
func (p program) chains(used map[nft.Chain]struct{}) {
	leads, n := p.leads()
	for _, l := range leads[:n] {
		if c := l.to(); c.Balances() {
			used[c] = struct{}{}
		}
	}
}

// replace adds to a delta what turns the program before into the program after.
func replace(d *nft.Delta, f Frontend, before, after program) {
	old, n := before.leads()
	next, m := after.leads()
	for i := range max(n, m) {
		replaceSlots(d, f, old[i], next[i])
	}
	var oldRoom, nextRoom [fewHeads]nft.Element
	was, is := before.head(f, oldRoom[:0]), after.head(f, nextRoom[:0])
	for _, e := range was {
		if !slices.Contains(is, e) {
			d.Delete = append(d.Delete, e)
		}
	}
	for _, e := range is {
		if !slices.Contains(was, e) {
			d.Add = append(d.Add, e)
		}
	}
}

// replaceSlots does so for the endpoints of one half. Halves of different kinds
// share nothing.
func replaceSlots(d *nft.Delta, f Frontend, old, next lead) {
	if len(old.slots) > 0 && len(next.slots) > 0 && old.set != next.set {
		replaceSlots(d, f, old, lead{})
		replaceSlots(d, f, lead{}, next)
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
}
