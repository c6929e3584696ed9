// SPDX-License-Identifier: Apache-2.0

package view

import (
	"iter"

	"github.com/kube-nft/kube-nft/nft"
)

// Tally adds up what the frontends of one table count. What a frontend has counted
// is lost when the table is made anew, or when the frontend is and nobody carried
// its counter over, and a sum of which a part is lost would look to a reader like
// one that started anew. So the differences from one reading to the next are added
// up: the sums never fall while a Service port is there. They start with the first
// reading, in which counters stand as another process left them.
//
// A reading is Begin, Add for each frontend, and End. One goroutine owns a Tally.
type Tally struct {
	table uint64 // its number
	round uint32
	// known says that frontends which are not in the map came after a reading, and so
	// began at zero.
	known     bool
	seen      int
	frontends map[Counter]frontendTally
	ports     map[Name]*portTally
}

type frontendTally struct {
	packets uint64
	round   uint32 // of the reading that had it last
}

type portTally struct {
	total uint64
	round uint32
}

// NewTally returns a Tally before its first reading.
func NewTally() *Tally {
	return &Tally{frontends: make(map[Counter]frontendTally), ports: make(map[Name]*portTally)}
}

// Begin starts a reading.
func (t *Tally) Begin() {
	t.round++
	t.seen = 0
}

// Add takes a frontend of a reading, as nft/kernel.Conn.Connections tells it; it may
// come twice. Frontends that nobody serves count nothing, but keep their Service
// port's sum.
func (t *Tally) Add(table uint64, e nft.Element, packets uint64) {
	port, ok := NameOf(e)
	if !ok {
		return // somebody else's
	}
	if t.table != table {
		t.known = t.known || t.table != 0
		t.table = table
		clear(t.frontends)
	}
	p := t.ports[port]
	if p == nil {
		p = &portTally{}
		t.ports[port] = p
	}
	p.round = t.round
	if !e.Set.Counted() {
		return
	}
	t.seen++
	key := Counter{e.Set, e.Key}
	before, there := t.frontends[key]
	t.frontends[key] = frontendTally{packets, t.round}
	if to := e.Value.Verdict.Kind; to != nft.Drop && (there || t.known) {
		p.total += counted(before.packets, packets)
	}
}

// Sums yields the connections of each Service port since the first reading, in no
// order.
func (t *Tally) Sums() iter.Seq2[Name, uint64] {
	return func(yield func(Name, uint64) bool) {
		for name, p := range t.ports {
			if !yield(name, p.total) {
				return
			}
		}
	}
}

// counted is how much a counter has counted between two readings. If it fell, the
// frontend went and came again, or its counter was carried over to a new element and
// the first reading came in between. Which one, nobody says; but when half of it is
// gone, taking all that is left for new is wrong by no more than what really came in
// the moment between.
func counted(before, now uint64) uint64 {
	switch {
	case now >= before:
		return now - before
	case now <= before/2:
		return now
	}
	return 0
}

// FewFrontends are not worth forgetting: so many more than a reading had may be kept.
const FewFrontends = 1000

// End ends a reading. After a whole one what it did not have is gone; after others
// it is kept, unless that has become too much.
func (t *Tally) End(whole bool) {
	if !whole && len(t.frontends) <= 2*t.seen+FewFrontends {
		return
	}
	t.known = whole
	for key, f := range t.frontends {
		if f.round != t.round {
			delete(t.frontends, key)
		}
	}
	for key, p := range t.ports {
		if p.round != t.round {
			delete(t.ports, key)
		}
	}
}
