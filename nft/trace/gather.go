// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"slices"
	"time"
)

// quiet is how long nothing must be heard of a packet before its story is told. The
// kernel tells of all hooks within microseconds, unless a busy CPU comes between.
const quiet = 50 * time.Millisecond

// maxGathered bounds the packets whose events are kept.
const maxGathered = 4096

// maxEvents bounds the events that are kept of one packet: more than any ruleset
// makes of one, short of a loop.
const maxEvents = 4096

// Gatherer puts events together that are of one packet. Those of different packets
// come mixed, from several CPUs.
type Gatherer struct {
	Full bool // packets were left out, because too many were under way

	open []*gathered // in the order of their first events
	byID map[uint32]*gathered
}

type gathered struct {
	events []Event
	ids    []uint32
	seen   *Header // as it was last
	out    uint32  // where it was to go then
}

func (g *gathered) last() *Event { return &g.events[len(g.events)-1] }

// Add takes an event.
func (g *Gatherer) Add(e Event) {
	if g.byID == nil {
		g.byID = make(map[uint32]*gathered)
	}
	p := g.byID[e.ID]
	if p != nil && begin(&e) && p.ended() {
		delete(g.byID, e.ID) // another packet, with a number that is used again
		p = nil
	}
	if p == nil {
		if p = g.returned(&e); p == nil {
			if len(g.open) == maxGathered {
				g.Full = true
				return
			}
			p = &gathered{}
			g.open = append(g.open, p)
		}
		p.ids = append(p.ids, e.ID)
		g.byID[e.ID] = p
	}
	if len(p.events) == maxEvents {
		return
	}
	p.events = append(p.events, e)
	if e.Header != nil {
		p.seen, p.out = e.Header, e.Out
	}
}

// begin reports whether an event is the first of a packet on its way in, or of one
// that a process has made.
func begin(e *Event) bool {
	return e.Table == OwnTable && e.Header != nil && (e.Chain == follow || e.Chain == "PREROUTING"+begins)
}

// ended reports whether no more can come.
func (g *gathered) ended() bool {
	e := g.last()
	return e.Table == OwnTable && (e.Chain == "INPUT"+ends || e.Chain == "POSTROUTING"+ends) ||
		e.Type != Return && e.Verdict.code() == Drop
}

// returned finds the packet that has just left by the device that an event's packet
// came in on: only what this host sends to itself does.
func (g *Gatherer) returned(e *Event) *gathered {
	if e.Header == nil || e.In == 0 {
		return nil
	}
	for _, p := range slices.Backward(g.open) {
		last := p.last()
		if last.Table == OwnTable && last.Chain == "POSTROUTING"+ends && p.out == e.In && *p.seen == *e.Header {
			return p
		}
	}
	return nil
}

// Ripe returns the events of packets of which nothing has been heard for a while, or
// of all if now is zero.
func (g *Gatherer) Ripe(now time.Time) (packets [][]Event) {
	g.open = slices.DeleteFunc(g.open, func(p *gathered) bool {
		if !now.IsZero() && now.Sub(p.last().Time) < quiet {
			return false
		}
		packets = append(packets, p.events)
		for _, id := range p.ids {
			if g.byID[id] == p {
				delete(g.byID, id)
			}
		}
		return true
	})
	return packets
}

// Next returns when to ask for ripe ones again; zero if there is nothing to wait for.
func (g *Gatherer) Next() (next time.Time) {
	for _, p := range g.open {
		if ripe := p.last().Time.Add(quiet); next.IsZero() || ripe.Before(next) {
			next = ripe
		}
	}
	return next
}
