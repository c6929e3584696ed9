// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"iter"
	"net/netip"
	"slices"
)

// Contents is what a table holds beside its constant rules.
type Contents struct {
	Elements [numSets]map[Key]Value
	// Chains are the chains that exist for a number of endpoints; the constant
	// ones are not among them.
	Chains map[Chain]struct{}
	// Affinities are what Service ports own.
	Affinities map[Port]Affinity
	// Sizes and Features are those of a table that was read.
	Sizes    Sizes
	Features Features
}

// Counts is a number of elements for each set.
type Counts = [numSets]int

// Only returns the numbers of elements in sets that a table with some features has.
func Only(n Counts, f Features) Counts {
	for set, l := range layouts {
		if l.needs&^f != 0 {
			n[set] = 0
		}
	}
	return n
}

// Put adds an element, or replaces the one with the same key.
func (c *Contents) Put(e Element) {
	m := c.Elements[e.Set]
	if m == nil {
		m = make(map[Key]Value)
		c.Elements[e.Set] = m
	}
	m[e.Key] = e.Value
	if layouts[e.Set].verdict {
		c.PutChain(e.Value.Verdict)
	}
}

// PutAffinity adds what a Service port owns.
func (c *Contents) PutAffinity(a Affinity) {
	if c.Affinities == nil {
		c.Affinities = make(map[Port]Affinity)
	}
	c.Affinities[a.Port] = a
}

// PutChain adds a chain; constant chains are left out.
func (c *Contents) PutChain(chain Chain) {
	if !chain.Balances() {
		return
	}
	if c.Chains == nil {
		c.Chains = make(map[Chain]struct{})
	}
	c.Chains[chain] = struct{}{}
}

// Ranges lists the ranges in a set.
func (c Contents) Ranges(set Set) []netip.Prefix {
	var all []netip.Prefix
	for k := range c.Elements[set] {
		all = append(all, k.Range.Prefix())
	}
	return all
}

// Len is the number of elements.
func (c Contents) Len() int {
	n := 0
	for _, m := range c.Elements {
		n += len(m)
	}
	return n
}

// Counts is the number of elements in each set.
func (c Contents) Counts() (n Counts) {
	for set, m := range c.Elements {
		n[set] = len(m)
	}
	return n
}

// Sorted lists the elements by set and key.
func (c Contents) Sorted() []Element {
	all := make([]Element, 0, c.Len())
	for set, m := range c.Elements {
		for k, v := range m {
			all = append(all, Element{Set(set), k, v})
		}
	}
	slices.SortFunc(all, Element.Compare)
	return all
}

// Table is a whole table.
type Table struct {
	Schema     *Schema
	Chains     []Chain // that exist for a number of endpoints
	Affinities []Affinity
	// Keep says whom clients may stay with that the kernel remembers from before.
	Keep     []Keep
	Elements iter.Seq[Element]
}

// Change is a delta and the table that it is for.
type Change struct {
	// Was is the schema of the table before, if its features change; else nil.
	Was    *Schema
	Schema *Schema
	Delta  Delta
}

// Empty reports whether the change changes nothing.
func (c *Change) Empty() bool { return c.Was == nil && c.Delta.Empty() }

// Delta is what changes in one table. The kernel shows packets none of it or all.
type Delta struct {
	// Chains are made first. They are few, and to make one again costs the kernel a
	// walk over all endpoints (nf_tables_bind_set), so they stay.
	Chains []Chain
	// Gone are chains deleted last, because the table loses a feature that they
	// need.
	Gone []Chain
	// Delete and Add change elements. A key in both is one whose value changes.
	Delete, Add []Element
	// Affinities change what Service ports own.
	Affinities []AffinityChange
	// Keep says whom the clients of a Service port may stay with; what the kernel
	// remembers of other endpoints goes in the same transaction.
	Keep []Keep
}

// AffinityChange is what a Service port owned and what it owns then; either may be
// zero.
type AffinityChange struct{ Was, Is Affinity }

// Keep names the endpoints of a Service port with session affinity.
type Keep struct {
	Affinity Affinity
	// Endpoints are all of them, Local those on this node.
	Endpoints, Local []netip.AddrPort
}

// Empty reports whether the delta changes nothing.
func (d *Delta) Empty() bool {
	return d.Size() == 0
}

// Emptied is an empty delta in the room of this one.
func (d *Delta) Emptied() Delta { return Delta{Delete: d.Delete[:0], Add: d.Add[:0]} }

// Size is the number of things that the delta touches.
func (d *Delta) Size() int {
	return len(d.Chains) + len(d.Gone) + len(d.Delete) + len(d.Add) + len(d.Affinities) + len(d.Keep)
}

// Count adds the delta to a number of elements for each set.
func (d *Delta) Count(n *Counts) {
	for _, e := range d.Delete {
		n[e.Set]--
	}
	for _, e := range d.Add {
		n[e.Set]++
	}
}

// Diff compares what a table holds with what it should hold, one wanted element
// at a time, so that the wanted contents need never exist as a whole.
type Diff struct {
	// Delta grows with each difference found. The caller may take it at any time
	// between two calls and leave an empty one.
	Delta  Delta
	have   Contents
	narrow []AffinityChange // what Service ports lose when nothing leads to it any more
	// The ranges in have, by the rest of their key, of sets that were asked for.
	ranges map[Set]map[Key][]Range
}

// NewDiff starts a comparison with what a table holds; have is used up by it.
func NewDiff(have Contents) *Diff { return &Diff{have: have} }

// Want says that the table should hold the element.
func (d *Diff) Want(e Element) {
	v, ok := d.have.Elements[e.Set][e.Key]
	if ok {
		delete(d.have.Elements[e.Set], e.Key)
		if v == e.Value {
			return
		}
		d.Delta.Delete = append(d.Delta.Delete, Element{e.Set, e.Key, v})
	}
	if e.Set.Ranged() {
		d.replaceRanges(e)
	}
	d.Delta.Add = append(d.Delta.Add, e)
}

// replaceRanges deletes the ranges that a new one overlaps: the kernel does not
// take it beside them. None of them is wanted, because wanted ranges are disjoint.
func (d *Diff) replaceRanges(e Element) {
	of := func(k Key) Key { k.Range = Range{}; return k }
	if _, indexed := d.ranges[e.Set]; !indexed {
		all := make(map[Key][]Range)
		for k := range d.have.Elements[e.Set] {
			all[of(k)] = append(all[of(k)], k.Range)
		}
		if d.ranges == nil {
			d.ranges = make(map[Set]map[Key][]Range)
		}
		d.ranges[e.Set] = all
	}
	for _, r := range d.ranges[e.Set][of(e.Key)] {
		old := Element{Set: e.Set, Key: e.Key}
		old.Key.Range = r
		if _, there := d.have.Elements[e.Set][old.Key]; there && r.Prefix().Overlaps(e.Key.Range.Prefix()) {
			delete(d.have.Elements[e.Set], old.Key)
			d.Delta.Delete = append(d.Delta.Delete, old)
		}
	}
}

// WantChain says that the table should hold the chain.
func (d *Diff) WantChain(c Chain) {
	if !c.Balances() {
		return
	}
	if _, ok := d.have.Chains[c]; ok {
		delete(d.have.Chains, c)
		return
	}
	d.Delta.Chains = append(d.Delta.Chains, c)
}

// WantAffinity says that a Service port should own what it says. What it owns
// beside that goes with the rest, since elements still lead to it.
func (d *Diff) WantAffinity(a Affinity) {
	was := d.have.Affinities[a.Port]
	delete(d.have.Affinities, a.Port)
	wide := a
	wide.Ways |= was.Ways
	wide.Local = a.Local || was.Local
	if was != wide {
		d.Delta.Affinities = append(d.Delta.Affinities, AffinityChange{was, wide})
	}
	if wide != a {
		d.narrow = append(d.narrow, AffinityChange{wide, a})
	}
}

// Rest says that nothing else is wanted: elements that were not named go, and what
// Service ports own. Chains stay.
func (d *Diff) Rest() {
	d.Delta.Delete = append(d.Delta.Delete, d.have.Sorted()...)
	d.Delta.Affinities = append(d.Delta.Affinities, d.narrow...)
	d.narrow = nil
	for _, a := range d.have.Affinities {
		d.Delta.Affinities = append(d.Delta.Affinities, AffinityChange{Was: a})
	}
	d.have = Contents{}
}

// Compare orders chains by kind and number.
func (a Chain) Compare(b Chain) int {
	if a.Kind != b.Kind {
		return int(a.Kind) - int(b.Kind)
	}
	return int(int64(a.N) - int64(b.N))
}
