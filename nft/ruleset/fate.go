// SPDX-License-Identifier: Apache-2.0

package ruleset

import "fmt"

// Fate is what may become of a packet in a base chain. If only one thing may, it
// does; if several may, it depends on what is not known of the packet, or on
// conditions that are not understood.
type Fate struct {
	// May has a place for each action that may end the packet's way; Pass is that
	// the policy lets it pass.
	May  map[Action]Place
	Pass bool
	// NoTrack: a rule, at NoTrackAt, may take the packet out of connection tracking.
	NoTrack   bool
	NoTrackAt Place
}

// Place is where something happens to a packet.
type Place struct {
	Table *Table
	Base  *Chain
	Chain string
	Rule  *Rule // nil for the policy of the base chain
	// Sure: nothing unknown is among the conditions.
	Sure bool
}

// String names the place as nft would list it.
func (p Place) String() string {
	at := fmt.Sprintf("chain %s %s", p.Table, p.Chain)
	if p.Rule == nil {
		return at + ", by its policy"
	}
	return fmt.Sprintf("%s, rule with handle %d", at, p.Rule.Handle)
}

// Lost reports whether the packet certainly does not get through, and where.
func (f Fate) Lost() (Action, Place, bool) {
	if f.Pass || len(f.May) == 0 {
		return 0, Place{}, false
	}
	for a := range f.May {
		if a != Drop && a != Reject {
			return 0, Place{}, false
		}
	}
	for _, a := range []Action{Drop, Reject} {
		if at, ok := f.May[a]; ok {
			return a, at, true
		}
	}
	return 0, Place{}, false
}

// maxDepth is how deep jumps may be nested (nf_tables.h, NFT_JUMP_STACK_SIZE).
const maxDepth = 16

// Fate follows a packet through a base chain and what it leads to.
func (t *Table) Fate(base *Chain, p Packet) Fate {
	w := walk{table: t, base: base, packet: p.subject(), fate: Fate{May: make(map[Action]Place)}, seen: make(map[string]truth)}
	if t.Dormant {
		w.fate.Pass = true
		return w.fate
	}
	ends := w.chain(base, 0, true)
	if ends == yes {
		return w.fate
	}
	if base.Drop {
		w.end(Drop, Place{Table: t, Base: base, Chain: base.Name, Sure: ends == no})
	} else {
		w.fate.Pass = true
	}
	return w.fate
}

// walk follows a packet.
type walk struct {
	table  *Table
	base   *Chain
	packet *subject
	fate   Fate
	seen   map[string]truth // whether the packet's way ends in a chain
}

func (w *walk) end(a Action, at Place) {
	// Of several places the one tells most that is sure, or is about this packet.
	was, ok := w.fate.May[a]
	if !ok || at.Sure && !was.Sure || !was.Sure && w.table.names(at.Rule, w.packet) && !w.table.names(was.Rule, w.packet) {
		w.fate.May[a] = at
	}
}

// chain says whether the packet's way ends in a chain: yes if it always does, no if
// it comes back.
func (w *walk) chain(c *Chain, depth int, sure bool) (ends truth) {
	if c == nil || depth > maxDepth {
		return maybe
	}
	if ends, ok := w.seen[c.Name]; ok {
		return ends
	}
	w.seen[c.Name] = maybe // loops do not exist
	ends = w.rules(c, depth, sure)
	w.seen[c.Name] = ends
	return ends
}

// rules goes through a chain's rules. left is whether the packet may still be there.
func (w *walk) rules(c *Chain, depth int, sure bool) (ends truth) {
	ended, left := no, false // left: it may have returned before the end
	for i := range c.Rules {
		r := &c.Rules[i]
		hit := yes
		for j := range r.Matches {
			hit = hit.and(r.Matches[j].holds(w.table, w.packet))
		}
		if hit == no {
			continue
		}
		at := Place{w.table, w.base, c.Name, r, sure && hit == yes && !left && ended == no}
		if r.NoTrack && (!w.fate.NoTrack || at.Sure) {
			w.fate.NoTrack, w.fate.NoTrackAt = true, at
		}
		ends, back := w.verdict(r, &r.Verdict, at, depth)
		if ends != no {
			ended = maybe
		}
		left = left || back != no
		switch {
		case hit != yes:
		case ends == yes && !left:
			return yes
		case ends == yes, back == yes:
			return maybe.and(ended)
		}
	}
	if !c.Kept() {
		w.unread(c)
		ended = maybe
	}
	return ended
}

// unread stands for rules that are not kept: each of the things may happen that some
// rule of the chain does, or of those that it leads to.
func (w *walk) unread(c *Chain) {
	for a, n := range w.table.Reach(c).Does {
		if n > 0 && Action(a).Ends() {
			w.end(Action(a), Place{Table: w.table, Base: w.base, Chain: c.Name, Rule: &Rule{}})
		}
	}
}

// verdict does what a rule says. back is whether the packet leaves this chain, its
// way to go on where it came from.
func (w *walk) verdict(r *Rule, v *Verdict, at Place, depth int) (ends, back truth) {
	switch v.Kind {
	case Act:
		w.end(v.Action, at)
		return yes, no
	case Jump:
		return w.chain(w.table.Chains[v.Chain], depth+1, at.Sure), no
	case Goto:
		if ends = w.chain(w.table.Chains[v.Chain], depth+1, at.Sure); ends == yes {
			return yes, no
		}
		return ends, yes
	case Return:
		return no, yes
	case Lookup:
		return w.look(r, v, at, depth)
	}
	return no, no
}

// look asks a verdict map.
func (w *walk) look(r *Rule, v *Verdict, at Place, depth int) (ends, back truth) {
	m := w.table.Sets[v.Map]
	if m == nil || !m.read {
		return w.lookUnread(m, at), maybe
	}
	for i := range m.elements {
		hit := maybe
		if v.key.field != unknownField && v.key.field != mark {
			hit = m.holds(i, &v.key, w.packet)
		}
		if hit == no {
			continue
		}
		here := at
		here.Sure = at.Sure && hit == yes
		e, b := w.verdict(r, &m.elements[i].Verdict, here, depth)
		if hit == yes { // keys are there once
			return e, b
		}
		ends, back = max(ends, e.and(maybe)), max(back, b.and(maybe))
	}
	return ends, back
}

// lookUnread is for a map whose elements were too many to read: it may lead to
// anything that stands in its table.
func (w *walk) lookUnread(m *Set, at Place) truth {
	if m != nil && m.Count == 0 {
		return no
	}
	at.Sure = false
	for _, c := range w.table.Chains {
		if c.Base() {
			continue
		}
		for a, n := range c.Does {
			if n > 0 && Action(a).Ends() {
				w.end(Action(a), at)
			}
		}
	}
	return maybe
}

// Names reports whether a rule asks for the packet's destination, by address or
// port, and the packet has it: then the rule is about it, whatever else it asks for.
func (t *Table) Names(r *Rule, p Packet) bool { return t.names(r, p.subject()) }

func (t *Table) names(r *Rule, p *subject) bool {
	if r == nil {
		return false
	}
	for i := range r.Matches {
		m := &r.Matches[i]
		if (m.of.field == destPort || m.of.field == destAddr && m.whole()) && !m.not && m.holds(t, p) == yes {
			return true
		}
	}
	return false
}

// whole reports whether a condition is about one address, not a network.
func (m *Match) whole() bool {
	for _, b := range m.of.mask {
		if b != 0xff {
			return false
		}
	}
	return m.Set != "" || len(m.ranges) > 0 && len(m.ranges[0].from) >= 4
}
