// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"net/netip"
	"strings"
)

// Tell makes a story of the events of one packet, in the order in which they came.
// It reports false if the packet was not one that our table follows: others trace
// packets, too.
func Tell(events []Event, l Lookup) (Packet, bool) {
	t := teller{lookup: l, packet: Packet{Steps: []Step{}}}
	for _, v := range visits(events) {
		t.visit(v)
	}
	if !t.follows {
		return Packet{}, false
	}
	t.finish()
	return t.packet, true
}

// visit is one packet's way through one base chain.
type visit struct {
	table  Table
	chain  string
	events []Event
	header *Header // as it was before
}

// visits splits events where the kernel described the packet anew.
func visits(events []Event) (all []visit) {
	for _, e := range events {
		if len(all) == 0 || e.Header != nil {
			all = append(all, visit{table: e.Table, chain: e.Chain, header: e.Header})
		}
		v := &all[len(all)-1]
		v.events = append(v.events, e)
	}
	return all
}

// last is the event that says how the visit ended.
func (v *visit) last() *Event { return &v.events[len(v.events)-1] }

// teller goes along with a packet.
type teller struct {
	lookup  Lookup
	packet  Packet
	follows bool
	header  *Header // as it was when somebody last saw it
	hook    string
	over    bool   // the hook's last chain has seen it
	done    bool   // a verdict has ended its way
	nat     *visit // the last chain that may have translated it
	local   bool   // made by a process of this host
	marked  bool
	// Steps that are completed once it is seen where the packet went, 1 for the first.
	pendingTo, pendingFrom int
	affinity               bool
	frontend               frontend
}

func (t *teller) visit(v visit) {
	if v.header != nil {
		t.look(v)
	}
	hook, nat, ok := t.lookup.Base(v.table, v.chain)
	if v.table == OwnTable {
		t.witness(v)
		return
	}
	if !ok {
		hook = t.hook // the chain is gone
	}
	t.enter(hook)
	if v.table.Ours() {
		t.ours(&v)
	} else {
		t.foreign(&v)
	}
	if nat && v.last().Type == Rule && v.last().Verdict.code() == Accept {
		t.nat = &v
	}
	if t.ends(&v) {
		t.done = true
	}
}

func (t *teller) enter(hook string) {
	if hook != t.hook {
		t.hook, t.over = hook, false
	}
}

// look compares the packet with what it was when it was last seen.
func (t *teller) look(v visit) {
	h := v.header
	first := v.events[0]
	if t.header == nil {
		t.begin(first)
	} else {
		if h.Dst != t.header.Dst {
			t.movedTo(h.Dst)
		}
		if h.Src != t.header.Src {
			t.movedFrom(h.Src)
		}
	}
	if first.Out != 0 {
		t.packet.Out = t.lookup.Device(first.Out)
	}
	t.header = h
}

func (t *teller) begin(e Event) {
	h := e.Header
	t.packet.Time, t.packet.Protocol = e.Time, h.Proto.String()
	t.packet.Source, t.packet.Destination, t.packet.First = h.Src, h.Dst, h.Begins
	t.local = e.In == 0
	if !t.local {
		t.packet.In = t.lookup.Device(e.In)
	}
}

// witness takes the word of one of our own chains, which do nothing else.
func (t *teller) witness(v visit) {
	t.follows = true
	if v.chain == follow {
		// The packet is traced from there on, and not from the base chain before.
		if t.enter("prerouting"); t.local {
			t.enter("output")
		}
		return
	}
	name, ended := strings.CutSuffix(v.chain, ends)
	if !ended {
		name = strings.TrimSuffix(v.chain, begins)
	}
	t.enter(strings.ToLower(name))
	t.over = ended
}

// movedTo says where the packet's destination went, and who did it.
func (t *teller) movedTo(to netip.AddrPort) {
	t.packet.TranslatedTo = &to
	switch {
	case t.pendingTo > 0:
		t.packet.Steps[t.pendingTo-1].Text += t.endpoint(to)
		t.pendingTo = 0
	case t.nat != nil:
		t.step(t.nat, fmt.Sprintf("destination becomes %s (%s): a translation of others, and no Service's", to, t.where(t.nat)))
	default:
		t.tracked("conntrack translates the destination to %s, as that of the connection's first packet", to)
	}
	t.nat = nil
}

// movedFrom does the same for the source.
func (t *teller) movedFrom(from netip.AddrPort) {
	t.packet.SeenAs = &from
	switch {
	case t.pendingFrom > 0:
		t.packet.Steps[t.pendingFrom-1].Text += " as " + from.String()
		t.packet.Masqueraded = true
		t.pendingFrom = 0
	case t.nat != nil:
		t.step(t.nat, fmt.Sprintf("source becomes %s (%s): a translation of others", from, t.where(t.nat)))
	default:
		t.tracked("conntrack translates the source to %s, as that of the connection's first packet", from)
	}
	t.nat = nil
}

func (t *teller) tracked(format string, a netip.AddrPort) {
	t.packet.Steps = append(t.packet.Steps, Step{Hook: t.hook, Text: fmt.Sprintf(format, a)})
}

func (t *teller) step(v *visit, text string) {
	t.packet.Steps = append(t.packet.Steps, Step{Hook: t.hook, Table: v.table.String(), Chain: v.chain, Text: text})
}

// foreign tells what a chain of others did.
func (t *teller) foreign(v *visit) {
	end := v.last()
	if end.Type == Rule && end.Verdict.code() >= 0 || end.Type == Policy {
		text := end.Verdict.String()
		if end.Verdict.code() != Accept {
			text += " (" + t.where(v) + ")"
		}
		t.step(v, text)
	}
}

// where names the rule that ended a visit.
func (t *teller) where(v *visit) string {
	p := t.place(v)
	words := "table " + p.Table + ", chain " + p.Chain
	if p.Rule == 0 {
		return words + ", policy"
	}
	words += fmt.Sprintf(", rule handle %d", p.Rule)
	if p.Comment != "" {
		words += fmt.Sprintf(" %q", p.Comment)
	}
	return words
}

func (t *teller) place(v *visit) Place {
	end := v.last()
	p := Place{Table: v.table.String(), Chain: end.Chain, Ours: v.table.Ours()}
	if end.Type == Rule {
		p.Rule = end.Rule
		p.Comment, _, _ = t.lookup.Rule(v.table, end.Chain, end.Rule)
	}
	return p
}

// ends takes a verdict after which the packet goes no further.
func (t *teller) ends(v *visit) bool {
	end := v.last()
	place := t.place(v)
	switch code := end.Verdict.code(); {
	case end.Type == Return || code < 0 || code == Accept:
		return false
	case code == Queue:
		t.packet.Outcome, t.packet.Reason = Queued, "handed to a process by "+t.where(v)
	case end.Type == Rule && t.rejects(v):
		t.packet.Outcome = Rejected
	default:
		t.packet.Outcome = Dropped
	}
	if t.packet.Reason == "" {
		t.packet.Reason = string(t.packet.Outcome) + " by " + t.where(v)
	}
	t.packet.By = &place
	return true
}

func (t *teller) rejects(v *visit) bool {
	_, rejects, _ := t.lookup.Rule(v.table, v.last().Chain, v.last().Rule)
	return rejects
}

// finish says how a packet ended that no verdict has ended.
func (t *teller) finish() {
	p := &t.packet
	if t.header != nil {
		p.header = *t.header
	}
	if t.done {
		return
	}
	switch {
	case t.hook == "postrouting" && t.over && t.local:
		p.Outcome = Sent
	case t.hook == "postrouting" && t.over:
		p.Outcome = Forwarded
	case t.hook == "input" && t.over:
		p.Outcome = Delivered
	default:
		p.Outcome, p.Out = Lost, ""
		p.lostAt, p.lostAfter = t.hook, t.over
		p.Reason = p.lost()
	}
}
