// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/nft"
)

// ConnectionCounter tells what the frontends of a family's table have counted;
// nft/kernel.Conn is one. It may tell of a frontend several times, and whole is
// false if it may have missed one. In a table with another number all counters began
// at zero. It is asked when metrics are, which must not hold up a commit: give it a
// connection of its own.
type ConnectionCounter interface {
	Connections(ctx context.Context, f nft.Family, each func(table uint64, frontend nft.Element, packets uint64)) (whole bool, err error)
}

// connections is a Collector of the connections of Service ports.
type connections struct {
	counter ConnectionCounter
	limit   int
	reasons *reasons
	total   *prometheus.Desc
	omitted *prometheus.Desc

	mu      sync.Mutex // scrapes may come side by side
	tallies []*tally
}

func newConnections(counter ConnectionCounter, limit int, tables []*table, log *slog.Logger) *connections {
	c := &connections{
		counter: counter, limit: limit, reasons: newReasons("metrics leave out connections of Services", log),
		total: prometheus.NewDesc("kube_nft_service_connections_total",
			"Connections to a Service port through its frontends, since the first scrape.",
			[]string{familyLabel, "namespace", "service", "protocol", "port"}, nil),
		omitted: prometheus.NewDesc("kube_nft_service_ports_omitted",
			"Service ports whose connections are not listed, because others have had more.", nil, nil),
	}
	for _, t := range tables {
		if t.schema.Options.Counters {
			c.tallies = append(c.tallies, newTally(t.schema.Family, t.desired.Model().String()))
		}
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *connections) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.total
	ch <- c.omitted
}

// Collect implements prometheus.Collector. What cannot be read is left out; what
// was read before is not, or counters would seem to have started anew.
func (c *connections) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*portTally
	for _, t := range c.tallies {
		t.begin()
		whole, err := c.counter.Connections(context.Background(), t.family, t.add)
		t.end(whole && err == nil)
		c.reasons.explain(t.family, err)
		for _, p := range t.ports {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *portTally) int {
		return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.port.comment, b.port.comment),
			cmp.Compare(a.port.proto, b.port.proto), cmp.Compare(a.label, b.label))
	})
	listed := all[:min(len(all), c.limit)]
	for _, p := range listed {
		namespace, service, port := p.port.split()
		m, err := prometheus.NewConstMetric(c.total, prometheus.CounterValue, float64(p.total), p.label, namespace, service, p.port.proto.String(), port)
		if err == nil { // or somebody put an element in our table whose comment is no text
			ch <- m
		}
	}
	ch <- prometheus.MustNewConstMetric(c.omitted, prometheus.GaugeValue, float64(len(all)-len(listed)))
}

// tally adds up what the frontends of one table count. What a frontend has counted
// is lost when the table is made anew, or when the frontend is and nobody carried
// its counter over, and a sum of which a part is lost would look to a reader like
// one that started anew. So the differences from one reading to the next are added
// up: the sums never fall while a Service port is there. They start with the first
// reading, in which counters stand as another process left them.
type tally struct {
	family nft.Family
	label  string
	table  uint64 // its number
	round  uint32
	// known says that frontends which are not in the map came after a reading, and so
	// began at zero.
	known     bool
	seen      int
	frontends map[frontendKey]frontendTally
	ports     map[portKey]*portTally
}

type frontendKey struct {
	set nft.Set
	key nft.Key
}

type frontendTally struct {
	packets uint64
	round   uint32 // of the reading that had it last
}

// portKey names a Service port as comments do; frontends of one name differ in their
// protocol at most.
type portKey struct {
	comment string
	proto   nft.Proto
}

// split returns what the comment names. A very long one is cut.
func (p portKey) split() (namespace, service, port string) {
	namespace, rest, _ := strings.Cut(p.comment, "/")
	service, port, _ = strings.Cut(rest, ":")
	return namespace, service, port
}

type portTally struct {
	port  portKey
	label string
	total uint64
	round uint32
}

func newTally(family nft.Family, label string) *tally {
	return &tally{family: family, label: label, frontends: make(map[frontendKey]frontendTally), ports: make(map[portKey]*portTally)}
}

// begin starts a reading.
func (t *tally) begin() {
	t.round++
	t.seen = 0
}

// add takes a frontend of a reading. Frontends that nobody serves count nothing, but
// keep their Service port's sum.
func (t *tally) add(table uint64, e nft.Element, packets uint64) {
	if e.Value.Comment == "" {
		return // somebody else's
	}
	if t.table != table {
		t.known = t.known || t.table != 0
		t.table = table
		clear(t.frontends)
	}
	port := portKey{e.Value.Comment, e.Key.Proto}
	p := t.ports[port]
	if p == nil {
		p = &portTally{port: port, label: t.label}
		t.ports[port] = p
	}
	p.round = t.round
	if !e.Set.Counted() {
		return
	}
	t.seen++
	key := frontendKey{e.Set, e.Key}
	before, there := t.frontends[key]
	t.frontends[key] = frontendTally{packets, t.round}
	if to := e.Value.Verdict.Kind; to != nft.Drop && (there || t.known) {
		p.total += counted(before.packets, packets)
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

// fewFrontends are not worth forgetting.
const fewFrontends = 1000

// end ends a reading. After a whole one what it did not have is gone; after others
// it is kept, unless that has become too much.
func (t *tally) end(whole bool) {
	if !whole && len(t.frontends) <= 2*t.seen+fewFrontends {
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
