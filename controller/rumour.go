// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// touched is what others have touched in one table since it was last put right. It says
// where to look, not what is wrong there.
type touched struct {
	since time.Time // when the first of it was heard of; zero is nothing
	by    nft.Process
	// constant names something that is no element; the table is then compared as a
	// whole. So it is where there are too many elements.
	constant string
	many     bool
	// lost says that notifications were lost: nothing is known to be wrong, and
	// everything may be.
	lost    bool
	places  map[place]struct{}
	ranges  map[nft.Set]struct{} // sets of ranges
	clients map[nft.Port]struct{}
	missed  bool // it was found by looking, nobody had told
}

// place is where an element is, or should be.
type place struct {
	set nft.Set
	key nft.Key
}

// none reports whether nothing was touched.
func (t *touched) none() bool { return t.since.IsZero() }

// whole reports whether the table is to be compared as a whole.
func (t *touched) whole() bool { return t.constant != "" || t.many }

// what names something of it for people.
func (t *touched) what() string {
	if t.constant != "" {
		return t.constant
	}
	for p := range t.places {
		return "elements of " + p.set.String()
	}
	for s := range t.ranges {
		return "elements of " + s.String()
	}
	for p := range t.clients {
		return "clients of " + p.String()
	}
	return "many elements"
}

// add notes what one transaction touched.
func (t *touched) add(by nft.Process, of nft.Touched, now time.Time) {
	if t.since.IsZero() {
		t.since = now
	}
	t.by = by
	if t.constant == "" || of.Constant == "the table" {
		t.constant = of.Constant
	}
	if t.whole() {
		t.bound()
		return
	}
	for _, e := range of.Elements {
		put(&t.places, place{e.Set, e.Key})
	}
	for _, s := range of.Sets {
		if s.Ranged() {
			put(&t.ranges, s)
		} else {
			t.many = true
		}
	}
	for _, p := range of.Clients {
		put(&t.clients, p)
	}
	t.bound()
}

// merge adds what came later.
func (t *touched) merge(o touched) {
	if t.since.IsZero() {
		*t = o
		return
	}
	if !o.missed {
		t.by = o.by
	}
	t.missed, t.lost = t.missed && o.missed, t.lost || o.lost
	if t.constant == "" {
		t.constant = o.constant
	}
	t.many = t.many || o.many
	for p := range o.places {
		put(&t.places, p)
	}
	for s := range o.ranges {
		put(&t.ranges, s)
	}
	for p := range o.clients {
		put(&t.clients, p)
	}
	t.bound()
}

// bound drops what is not needed of a table that is compared as a whole.
func (t *touched) bound() {
	if t.many = t.many || len(t.places) > nft.MaxTouched; t.whole() {
		t.places, t.ranges, t.clients = nil, nil, nil
	}
}

func put[K comparable](m *map[K]struct{}, k K) {
	if *m == nil {
		*m = make(map[K]struct{})
	}
	(*m)[k] = struct{}{}
}

// rumours are what has been heard of others' transactions and the loop has not taken
// yet. However much is heard, there is one touched for each family.
type rumours struct {
	// wake has room for one.
	wake chan struct{}

	mu sync.Mutex
	of hearsay
}

// hearsay is what was heard.
type hearsay struct {
	tables map[nft.Family]*touched
	// commits counts transactions by the name of the process.
	commits map[string]int
	// lost: notifications were lost. began: from now on they come.
	lost, began bool
}

func newRumours() *rumours {
	return &rumours{wake: make(chan struct{}, 1), of: newHearsay()}
}

func newHearsay() hearsay {
	return hearsay{tables: make(map[nft.Family]*touched), commits: make(map[string]int)}
}

// hear implements what Watch calls.
func (r *rumours) hear(f nft.Foreign) {
	now := time.Now()
	r.mu.Lock()
	r.of.lost = r.of.lost || f.Lost
	if len(f.Touched) > 0 {
		r.of.commits[f.By.Name]++
	}
	for _, touch := range f.Touched {
		t := r.of.tables[touch.Family]
		if t == nil {
			t = &touched{}
			r.of.tables[touch.Family] = t
		}
		t.add(f.By, touch, now)
	}
	r.mu.Unlock()
	r.signal()
}

// begin says that from now on all is heard.
func (r *rumours) begin() {
	r.mu.Lock()
	r.of.began = true
	r.mu.Unlock()
	r.signal()
}

func (r *rumours) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take returns what was heard since the last time.
func (r *rumours) take() hearsay {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.of
	r.of = newHearsay()
	return h
}

// watch passes on changes by others. It starts only after everything is
// programmed, because the kernel spends time on every listener.
func (c *Controller) watch(ctx context.Context) {
	for ctx.Err() == nil {
		// What happened before is found by the generation, see began.
		err := c.kernel.Watch(ctx, c.rumours.begin, c.rumours.hear)
		if ctx.Err() != nil {
			return
		}
		c.log.Error("watching the tables failed, will listen again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// elements lists the places as elements, neighbours side by side.
func (t *touched) elements() []nft.Element {
	all := make([]nft.Element, 0, len(t.places))
	for p := range t.places {
		all = append(all, nft.Element{Set: p.set, Key: p.key})
	}
	slices.SortFunc(all, nft.Element.Compare)
	return all
}
