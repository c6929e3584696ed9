// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"maps"
	"slices"

	"github.com/kube-nft/kube-nft/nft"
)

// touch remembers what a frontend was before the first change.
func (t *Table) touch(f Frontend) {
	if _, seen := t.before[f]; !seen && t.before != nil {
		t.before[f] = t.current(f)
	}
}

// TakeDelta returns what changed since the last call, and the conflicts that are
// new.
func (t *Table) TakeDelta() (nft.Delta, []Conflict) {
	d := t.delta
	t.delta = nft.Delta{}
	touched := slices.SortedFunc(maps.Keys(t.before), compareFrontends)
	var conflicts []Conflict
	for _, f := range touched {
		replace(&d, f, t.before[f], t.current(f))
		conflicts = append(conflicts, t.review(f)...)
	}
	if len(touched) > 0 {
		t.before = make(map[Frontend]program) // clearing would keep its size
	}
	var hairpins nft.Delta
	t.hairpins.take(&hairpins)
	d.Add, t.late = append(d.Add, hairpins.Add...), append(t.late, hairpins.Delete...)
	for _, r := range t.refs() {
		r.take(&d) // of hairpins there is nothing left
	}
	t.owned.take(&d)
	d.Count(&t.counts)
	t.needChains(&d)
	return d, conflicts
}

// TakeLate returns what is to be deleted once the delta that was taken before is
// committed. A pod that leaves may just then have a packet to itself under way, led there
// by the table before: it must still be masqueraded by the table after.
func (t *Table) TakeLate() nft.Delta {
	d := nft.Delta{Delete: t.late}
	t.late = nil
	d.Count(&t.counts)
	return d
}

// Settle forgets what changed since the last delta, for a caller that compares
// the whole table anyway. It returns the chains that the table's elements lead to,
// and the conflicts that are new.
func (t *Table) Settle() ([]nft.Chain, []Conflict) {
	t.before = make(map[Frontend]program)
	t.delta, t.late = nft.Delta{}, nil
	t.owned.settle()
	t.counts = nft.Counts{}
	for _, r := range t.refs() {
		r.settle()
		t.counts[r.set] = len(r.count)
	}
	for set, keys := range t.node {
		t.counts[set] = len(keys)
	}
	used := make(map[nft.Chain]struct{})
	for f := range t.claims.winners {
		p := t.current(f)
		p.count(f, &t.counts)
		p.chains(used)
	}
	conflicts := t.reviewAll()
	slices.SortFunc(conflicts, func(a, b Conflict) int { return compareFrontends(a.Frontend, b.Frontend) })
	return slices.SortedFunc(maps.Keys(used), nft.Chain.Compare), conflicts
}

// needChains adds the chains to a delta that its elements are the first to lead to.
func (t *Table) needChains(d *nft.Delta) {
	for _, e := range d.Add {
		c := e.Value.Verdict
		if !c.Balances() {
			continue
		}
		if _, ok := t.chains[c]; !ok {
			t.chains[c] = struct{}{}
			d.Chains = append(d.Chains, c)
		}
	}
}
