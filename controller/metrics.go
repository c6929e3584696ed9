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

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/nft"
)

// metrics are what the loop tells of itself and its tables. Each is in
// docs/metrics.md.
type metrics struct {
	succeeded, failed prometheus.Counter
	duration          prometheus.Histogram
	resyncs           prometheus.Counter
}

// tableMetrics are those of one table, as it is after each pass.
type tableMetrics struct {
	noLocalInternal, noLocalExternal prometheus.Gauge
	conflicts                        prometheus.Gauge
	drifts                           prometheus.Counter
	elements                         [len(nft.Sets)]prometheus.Gauge
}

// familyLabel is whose values are the API's words (corev1.IPFamily), as in
// kube-proxy.
const familyLabel = "ip_family"

// measure makes the metrics of a Controller and its tables, and registers them if
// there is a registry.
func (c *Controller) measure() {
	commits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kube_nft_commits_total",
		Help: "Passes that wrote to the kernel (success), and passes that failed and are retried (error).",
	}, []string{"result"})
	c.metrics = metrics{
		succeeded: commits.WithLabelValues("success"),
		failed:    commits.WithLabelValues("error"),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kube_nft_commit_duration_seconds",
			Help:    "Time from the first look at what has come in to the kernel's last answer, of passes that wrote.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16), // 100 µs to 3.3 s
		}),
		resyncs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kube_nft_resyncs_total",
			Help: "Passes that read the tables and compared them as a whole: at start, after an error, after a change by somebody else.",
		}),
	}
	noLocal := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
		Help: "Service ports under a traffic policy Local that have endpoints, but none on this node: what comes to them here is dropped.",
	}, []string{"traffic_policy", familyLabel})
	conflicts := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kube_nft_frontend_conflicts",
		Help: "Frontends (address, protocol and port, or node port) that a Service claims and another one has.",
	}, []string{familyLabel})
	drifts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kube_nft_drifts_total",
		Help: "Times that somebody else changed the table, and it was compared and put right.",
	}, []string{familyLabel})
	elements := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kube_nft_elements",
		Help: "Elements of each set of the table.",
	}, []string{"set", familyLabel})
	for _, t := range c.tables {
		family := t.desired.Model().String()
		t.metrics = tableMetrics{
			noLocalInternal: noLocal.WithLabelValues("internal", family),
			noLocalExternal: noLocal.WithLabelValues("external", family),
			conflicts:       conflicts.WithLabelValues(family),
			drifts:          drifts.WithLabelValues(family),
		}
		for _, set := range nft.Sets {
			t.metrics.elements[set] = elements.WithLabelValues(set.String(), family)
		}
	}
	if r := c.config.Metrics; r != nil {
		r.MustRegister(commits, c.metrics.duration, c.metrics.resyncs, noLocal, conflicts, drifts, elements)
		if c.config.Clients != nil {
			r.MustRegister(newClients(c.config.Clients, c.tables, c.log))
		}
	}
}

// note counts a pass that succeeded, and what the tables are after it.
func (c *Controller) note(done Commit) {
	if done.Resync {
		c.metrics.resyncs.Inc()
	}
	if done.Batches > 0 {
		c.metrics.succeeded.Inc()
		c.metrics.duration.Observe(done.Took.Seconds())
	}
	for _, t := range c.tables {
		m := &t.metrics
		noLocal := t.desired.NoLocal()
		m.noLocalInternal.Set(float64(noLocal.Internal))
		m.noLocalExternal.Set(float64(noLocal.External))
		m.conflicts.Set(float64(t.desired.Conflicts()))
		for set, n := range t.desired.Counts() {
			m.elements[set].Set(float64(n))
		}
	}
}

// MeasureWalks returns what a Cleaner is to call after each walk, so that its work
// shows in a registry, under the names that kube-proxy gives to the same.
func MeasureWalks(r prometheus.Registerer) func(Walk) {
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "kubeproxy_conntrack_reconciler_sync_duration_seconds",
		Help:    "Time that a look through the tracked UDP flows of a family took, beside programming.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 15), // as in kube-proxy, 1 ms to 16 s
	}, []string{familyLabel})
	deleted := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubeproxy_conntrack_reconciler_deleted_entries_total",
		Help: "Stale UDP flows that were deleted from conntrack.",
	}, []string{familyLabel})
	r.MustRegister(took, deleted)
	for _, f := range nft.Families {
		name := compile.ModelFamily(f).String()
		deleted.WithLabelValues(name)
		took.WithLabelValues(name)
	}
	return func(w Walk) {
		name := compile.ModelFamily(w.Family).String()
		took.WithLabelValues(name).Observe(w.Took.Seconds())
		deleted.WithLabelValues(name).Add(float64(w.Deleted))
	}
}

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
	log      *slog.Logger
	number   *prometheus.Desc
	limit    prometheus.Metric

	mu   sync.Mutex
	said map[nft.Family]string // what was last logged
}

func newClients(counter ClientCounter, tables []*table, log *slog.Logger) *clients {
	limit := prometheus.NewDesc("kube_nft_affinity_clients_limit",
		"Clients that are remembered at most for one Service port and IP family; more are served without session affinity.", nil, nil)
	c := &clients{
		counter:  counter,
		families: make(map[nft.Family]string),
		log:      log,
		number: prometheus.NewDesc("kube_nft_affinity_clients",
			"Clients that the kernel remembers for a Service port with session affinity. Only the "+strconv.Itoa(maxClientSeries)+" fullest are listed.",
			[]string{familyLabel, "namespace", "service", "protocol", "port"}, nil),
		limit: prometheus.MustNewConstMetric(limit, prometheus.GaugeValue, nft.AffinitySize),
		said:  make(map[nft.Family]string),
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
		c.explain(family, err)
		for port, n := range counts {
			all = append(all, clientSeries{family, port, n})
		}
	}
	slices.SortFunc(all, func(a, b clientSeries) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.port.String(), b.port.String()), cmp.Compare(a.family, b.family))
	})
	return all[:min(len(all), maxClientSeries)]
}

// explain logs why there are no numbers, once until it is otherwise.
func (c *clients) explain(family nft.Family, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	c.mu.Lock()
	before := c.said[family]
	c.said[family] = text
	c.mu.Unlock()
	switch {
	case text == before || err == nil:
	case errors.Is(err, nft.ErrUncounted):
		c.log.Info("metrics leave out how many clients have session affinity", "err", err)
	default:
		c.log.Warn("metrics leave out how many clients have session affinity", "err", err)
	}
}
