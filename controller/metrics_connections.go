// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/controller/view"
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
	tallies []familyTally
}

// familyTally is the tally of one table.
type familyTally struct {
	*view.Tally
	family nft.Family
	label  string
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
			c.tallies = append(c.tallies, familyTally{view.NewTally(), t.schema.Family, t.desired.Model().String()})
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
	var all []portConnections
	for _, t := range c.tallies {
		t.Begin()
		whole, err := c.counter.Connections(context.Background(), t.family, t.Add)
		t.End(whole && err == nil)
		c.reasons.explain(t.family, err)
		for port, n := range t.Sums() {
			all = append(all, portConnections{port, t.label, n})
		}
	}
	slices.SortFunc(all, func(a, b portConnections) int {
		return cmp.Or(cmp.Compare(b.total, a.total), a.port.Compare(b.port), cmp.Compare(a.family, b.family))
	})
	listed := all[:min(len(all), c.limit)]
	for _, p := range listed {
		m, err := prometheus.NewConstMetric(c.total, prometheus.CounterValue, float64(p.total), p.family, p.port.Namespace, p.port.Service, p.port.Protocol.String(), p.port.Port)
		if err == nil { // or somebody put an element in our table whose comment is no text
			ch <- m
		}
	}
	ch <- prometheus.MustNewConstMetric(c.omitted, prometheus.GaugeValue, float64(len(all)-len(listed)))
}

// portConnections are those of a Service port in one family.
type portConnections struct {
	port   view.Name
	family string
	total  uint64
}
