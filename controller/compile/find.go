// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"iter"
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/nft"
)

// Settled reports whether all that was set is in a delta that was taken: then the
// kernel should hold what the Table holds.
func (t *Table) Settled() bool {
	if len(t.before) > 0 || len(t.owned.before) > 0 || len(t.late) > 0 || !t.delta.Empty() {
		return false
	}
	for _, r := range t.refs() {
		if len(r.was) > 0 {
			return false
		}
	}
	return true
}

// Find returns what a key of a set leads to, and whether the table holds it at all. It
// takes the same time in a table of any size.
func (t *Table) Find(set nft.Set, k nft.Key) (nft.Value, bool) {
	if keys, ok := t.node[set]; ok {
		_, ok := keys[k]
		return nft.Value{}, ok
	}
	for _, r := range t.refs() {
		if r.set == set {
			_, ok := r.count[k]
			return nft.Value{}, ok
		}
	}
	f := Frontend{Addr: k.Addr, Proto: k.Proto, Port: k.Port}
	p := t.current(f)
	if set.HoldsEndpoints() {
		leads, n := p.leads()
		for _, l := range leads[:n] {
			if of, ok := l.set.EndpointsOf(); ok && of == set && int64(k.Slot) < int64(len(l.slots)) {
				return l.slot(f, int(k.Slot)).Value, true
			}
		}
		return nft.Value{}, false
	}
	var room [fewHeads]nft.Element
	for _, e := range p.head(f, room[:0]) {
		if e.Set == set && e.Key == k {
			return e.Value, true
		}
	}
	return nft.Value{}, false
}

// InRanges yields all that the table holds in a set of ranges, in no order. It passes over
// Services that let everybody in, and looks at no endpoint.
func (t *Table) InRanges(set nft.Set) iter.Seq[nft.Element] {
	return func(yield func(nft.Element) bool) {
		for k := range t.node[set] {
			if !yield(nft.Element{Set: set, Key: k}) {
				return
			}
		}
		if set != nft.SourceRanges {
			return
		}
		for f := range t.claims.winners {
			p := t.current(f)
			if p.sources == nil {
				continue
			}
			for _, e := range p.head(f, nil) {
				if e.Set == set && !yield(e) {
					return
				}
			}
		}
	}
}

// NodeElements yields the elements that belong to the node and to no Service.
func (t *Table) NodeElements() iter.Seq[nft.Element] {
	return func(yield func(nft.Element) bool) {
		for set, keys := range t.node {
			for k := range keys {
				if !yield(nft.Element{Set: set, Key: k}) {
					return
				}
			}
		}
	}
}

// Needed yields all that a Service needs in the table, also what it shares with others:
// together with NodeElements, of all Services that is all there is. What its ports share
// comes more than once. Nothing for a Service that the table does not serve.
func (t *Table) Needed(name types.NamespacedName) iter.Seq[nft.Element] {
	return func(yield func(nft.Element) bool) {
		s := t.services[name]
		if s == nil {
			return
		}
		for e := range t.Elements(s) {
			if !yield(e) {
				return
			}
		}
		need := func(set nft.Set, k nft.Key) bool {
			return !k.Addr.IsValid() || yield(nft.Element{Set: set, Key: k})
		}
		if !need(nft.ClusterIPs, nft.Key{Addr: s.addr}) {
			return
		}
		for _, p := range s.ports {
			if !p.needs(need) {
				return
			}
		}
	}
}

// needs calls need with what a port shares with others, until that says that it is enough.
func (p *port) needs(need func(nft.Set, nft.Key) bool) bool {
	for _, a := range p.pods {
		if !need(nft.LoopBack, nft.Key{Addr: a}) {
			return false
		}
	}
	if p.affinity == (nft.Affinity{}) {
		return true
	}
	learn := func(set nft.Set, all []netip.AddrPort) bool {
		for _, e := range all {
			if !need(set, nft.Key{Addr: e.Addr(), Proto: nft.Proto(p.protocol), Port: e.Port()}) {
				return false
			}
		}
		return true
	}
	return learn(nft.LearnEndpoints, p.slots) && learn(nft.LearnLocalEndpoints, p.local)
}

// Keep says whom the clients of a Service port may stay with, if it remembers any.
func (t *Table) Keep(port nft.Port) (nft.Keep, bool) {
	p := t.owned.ports[port]
	if p == nil {
		return nft.Keep{}, false
	}
	return p.keep(), true
}

// Lacks reports whether a chain that the kernel should have is not among those that it
// has.
func (t *Table) Lacks(have map[nft.Chain]struct{}) bool {
	for c := range t.chains {
		if _, ok := have[c]; !ok && c.Balances() {
			return true
		}
	}
	return false
}
