// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// watcher reads the tables for those who look. It keeps one reading, without endpoints,
// for as long as it is fresh, and what rates are worked out from; nothing of it while
// nobody looks. Its methods may be called from several goroutines; one reads at a time.
type watcher struct {
	open func() (*kernel.Conn, error)
	now  func() time.Time

	mu      sync.Mutex
	conn    *kernel.Conn // nil while nobody looks
	last    *reading
	tallies map[nft.Family]*view.Tally
	rates   view.Rates
	forget  *time.Timer
}

// freshFor is how long a reading is good for: a page with several requests, and
// several who look, cost one.
const freshFor = 1500 * time.Millisecond

// forgetAfter is how long after the last look everything is forgotten.
const forgetAfter = 30 * time.Second

// reading is what was read of all tables but endpoints.
type reading struct {
	at     time.Time
	sight  sight
	tables []view.Table
	faults map[nft.Family]error // why a table could not be read
}

func newWatcher() *watcher {
	return &watcher{open: func() (*kernel.Conn, error) { return kernel.Open(kernel.Options{}) }, now: time.Now}
}

// look returns a fresh reading.
func (w *watcher) look(ctx context.Context) (*reading, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fresh(ctx)
}

// close forgets everything.
func (w *watcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		w.conn.Close()
	}
	w.conn, w.last, w.tallies, w.rates = nil, nil, nil, view.Rates{}
}

// fresh reads, unless what was read is fresh. A reader who goes away must not spoil it
// for the others.
func (w *watcher) fresh(ctx context.Context) (*reading, error) {
	if err := w.wake(); err != nil {
		return nil, err
	}
	now := w.now()
	if w.last != nil && now.Sub(w.last.at) < freshFor {
		return w.last, nil
	}
	next, err := w.read(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	next.at = now
	all := make([]*view.Tally, 0, len(w.tallies))
	for _, t := range w.tallies {
		all = append(all, t)
	}
	w.rates.Update(now, all...)
	w.last = next
	return next, nil
}

// wake opens the connection, and sees to that it is closed.
func (w *watcher) wake() error {
	if w.forget != nil {
		w.forget.Stop()
	}
	w.forget = time.AfterFunc(forgetAfter, w.close)
	if w.conn != nil {
		return nil
	}
	var err error
	w.conn, err = w.open()
	w.tallies = make(map[nft.Family]*view.Tally)
	return err
}

func (w *watcher) read(ctx context.Context) (*reading, error) {
	r := &reading{faults: make(map[nft.Family]error)}
	for _, f := range nft.Families {
		tally := w.tallies[f]
		if tally == nil {
			tally = view.NewTally()
			w.tallies[f] = tally
		}
		counters := make(view.Counters)
		tally.Begin()
		found, err := w.conn.Survey(ctx, f, func(table uint64, e nft.Element, packets uint64) {
			counters.Add(table, e, packets)
			tally.Add(table, e, packets)
		})
		tally.End(err == nil && found.Whole || errors.Is(err, nft.ErrMissing))
		if err != nil {
			r.faults[f] = err
			continue
		}
		r.sight.found = append(r.sight.found, found)
		r.tables = append(r.tables, view.Table{Schema: found.Schema, Contents: found.Contents, Counters: counters, Clients: found.Clients})
	}
	r.sight.view = view.Of(r.tables...)
	return r, nil
}

// services answers a query: the ports of one page, with their endpoints.
func (w *watcher) services(ctx context.Context, q query) (*servicesObject, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, err := w.fresh(ctx)
	if err != nil {
		return nil, err
	}
	ports := q.filter.Choose(r.sight.view)
	w.sort(ports, q.order)
	o := &servicesObject{APIVersion: objectVersion, Kind: "ServicePortPage", At: r.at, Total: len(ports), Offset: min(q.offset, len(ports)), Items: []portObject{}}
	ports = ports[o.Offset:min(o.Offset+q.limit, len(ports))]
	v, err := w.endpoints(context.WithoutCancel(ctx), r, ports)
	if err != nil {
		return nil, err
	}
	for i := range ports {
		at, ok := slices.BinarySearchFunc(v.Ports, ports[i].Name, func(p view.ServicePort, n view.Name) int { return p.Name.Compare(n) })
		if !ok {
			continue
		}
		item := objectOfPort(v, &v.Ports[at])
		if w.rates.Known() {
			rate := w.rates.Of(ports[i].Name)
			item.PerSecond = &rate
		}
		o.Items = append(o.Items, item)
	}
	return o, nil
}

// sort sorts ports by an order of package view, or by rates.
func (w *watcher) sort(ports []view.ServicePort, order string) {
	if order != byRate {
		view.Sort(ports, view.Order(order))
		return
	}
	view.Sort(ports, view.ByName)
	slices.SortStableFunc(ports, func(a, b view.ServicePort) int {
		switch x, y := w.rates.Of(a.Name), w.rates.Of(b.Name); {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
}

// endpoints reads those of a few ports, and returns a view of these alone.
func (w *watcher) endpoints(ctx context.Context, r *reading, ports []view.ServicePort) (*view.View, error) {
	wanted := make(map[view.Name]bool, len(ports))
	for i := range ports {
		wanted[ports[i].Name] = true
	}
	var tables []view.Table
	for i, t := range r.tables {
		few := *r.sight.found[i]
		few.Contents = only(t.Contents, wanted)
		if err := w.conn.SurveyEndpoints(ctx, &few, func(nft.Element) bool { return true }); err != nil {
			return nil, err
		}
		t.Contents = few.Contents
		tables = append(tables, t)
	}
	return view.Of(tables...), nil
}

// only returns the contents without the frontends of other ports; what several share
// is the same.
func only(c nft.Contents, wanted map[view.Name]bool) nft.Contents {
	for _, set := range nft.Sets {
		_, leads := set.EndpointsOf()
		switch {
		case set.HoldsEndpoints():
			c.Elements[set] = nil
		case leads || set == nft.NoEndpoints || set == nft.NoEndpointsNodePorts:
			few := make(map[nft.Key]nft.Value)
			for key, value := range c.Elements[set] {
				if name, ok := view.NameOf(nft.Element{Set: set, Key: key, Value: value}); ok && wanted[name] {
					few[key] = value
				}
			}
			c.Elements[set] = few
		}
	}
	return c
}
