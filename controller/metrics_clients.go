// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/nft"
)

// ClientCounter tells how many clients the kernel remembers for each Service port
// with session affinity, or nft.ErrUncounted; nft/kernel.Conn is one. It is asked
// when metrics are, which must not hold up a commit: give it a connection of its
// own.
type ClientCounter interface {
	AffinityClients(context.Context, nft.Family) (map[nft.Port]int, error)
}

// maxClientSeries bounds what one node tells of clients, however many Services
// have session affinity: the fullest maps are those that matter.
const maxClientSeries = 1000

// clients is a Collector of how many clients are remembered.
type clients struct {
	counter  ClientCounter
	families map[nft.Family]string
	reasons  *reasons
	number   *prometheus.Desc
	limit    prometheus.Metric
}

func newClients(counter ClientCounter, tables []*table, log *slog.Logger) *clients {
	limit := prometheus.NewDesc("kube_nft_affinity_clients_limit",
		"Clients that are remembered at most for one Service port and IP family; more are served without session affinity.", nil, nil)
	c := &clients{
		counter:  counter,
		families: make(map[nft.Family]string),
		reasons:  newReasons("metrics leave out how many clients have session affinity", log),
		number: prometheus.NewDesc("kube_nft_affinity_clients",
			"Clients that the kernel remembers for a Service port with session affinity. Only the "+strconv.Itoa(maxClientSeries)+" fullest are listed.",
			[]string{familyLabel, "namespace", "service", "protocol", "port"}, nil),
		limit: prometheus.MustNewConstMetric(limit, prometheus.GaugeValue, nft.AffinitySize),
	}
	for _, t := range tables {
		c.families[t.schema.Family] = t.desired.Model().String()
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *clients) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.number
	ch <- c.limit.Desc()
}

// Collect implements prometheus.Collector. What cannot be read is left out, the
// other metrics are not withheld for it.
func (c *clients) Collect(ch chan<- prometheus.Metric) {
	ch <- c.limit
	for _, s := range c.fullest() {
		namespace, service, protocol, port := s.port.Split()
		m, err := prometheus.NewConstMetric(c.number, prometheus.GaugeValue, float64(s.n), c.families[s.family], namespace, service, protocol, port)
		if err == nil { // or somebody put a set in our table whose name is no text
			ch <- m
		}
	}
}

// clientSeries is how many clients one Service port has in one family.
type clientSeries struct {
	family nft.Family
	port   nft.Port
	n      int
}

func (c *clients) fullest() []clientSeries {
	var all []clientSeries
	for family := range c.families {
		counts, err := c.counter.AffinityClients(context.Background(), family)
		c.reasons.explain(family, err)
		for port, n := range counts {
			all = append(all, clientSeries{family, port, n})
		}
	}
	slices.SortFunc(all, func(a, b clientSeries) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.port.String(), b.port.String()), cmp.Compare(a.family, b.family))
	})
	return all[:min(len(all), maxClientSeries)]
}

// reasons says why a Collector leaves something out, of each family once until it is
// otherwise.
type reasons struct {
	what string
	log  *slog.Logger

	mu   sync.Mutex
	said map[nft.Family]string
}

func newReasons(what string, log *slog.Logger) *reasons {
	return &reasons{what: what, log: log, said: make(map[nft.Family]string)}
}

func (r *reasons) explain(family nft.Family, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	r.mu.Lock()
	before := r.said[family]
	r.said[family] = text
	r.mu.Unlock()
	switch {
	case text == before || err == nil:
	case errors.Is(err, nft.ErrUncounted):
		r.log.Info(r.what, "err", err)
	default:
		r.log.Warn(r.what, "err", err)
	}
}
