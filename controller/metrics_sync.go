// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
)

// What follows has kube-proxy's names, labels and buckets (pkg/proxy/metrics), for
// dashboards and alerts that know them. kube-proxy makes passes of each IP family;
// ours are of all families, and count for those whose table they touch.

// syncMetrics are those of one table.
type syncMetrics struct {
	all, full, partial prometheus.Observer
	programming        prometheus.Observer
	failures           prometheus.Counter
	// succeeded is when the last good pass ended. Until then it is not there, as in
	// kube-proxy: an alert would take 0 for 1970.
	succeeded func() prometheus.Gauge
	// What the pass under way has done: compared the table as a whole, or written.
	compared, wrote bool
}

// measureSync makes them for all tables, and returns what is to be registered.
func (c *Controller) measureSync() []prometheus.Collector {
	durations := prometheus.ExponentialBuckets(0.001, 2, 15) // 1 ms to 16 s
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{familyLabel})
	}
	all := histogram("kubeproxy_sync_proxy_rules_duration_seconds",
		"Duration of passes that compared a table or wrote to it, also of those that failed.", durations)
	full := histogram("kubeproxy_sync_full_proxy_rules_duration_seconds",
		"Duration of passes that read a table and compared it as a whole.", durations)
	partial := histogram("kubeproxy_sync_partial_proxy_rules_duration_seconds",
		"Duration of passes that wrote to a table what had changed.", durations)
	programming := histogram("kubeproxy_network_programming_duration_seconds",
		"Time from the change of a pod or Service that changed an EndpointSlice to the kernel's answer.", programmingBuckets())
	succeeded := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
		Help: "When the last pass succeeded, since 1970.",
	}, []string{familyLabel})
	queued := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
		Help: "When something last came in for a pass, since 1970.",
	}, []string{familyLabel})
	failures := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
		Help: "Passes that failed to compare a table or to write to it.",
	}, []string{familyLabel})
	for _, t := range c.tables {
		family := t.desired.Model().String()
		t.sync = syncMetrics{
			all: all.WithLabelValues(family), full: full.WithLabelValues(family), partial: partial.WithLabelValues(family),
			programming: programming.WithLabelValues(family),
			failures:    failures.WithLabelValues(family),
			succeeded:   func() prometheus.Gauge { return succeeded.WithLabelValues(family) },
		}
		c.queue.metrics.queued[t.desired.Model()] = queued.WithLabelValues(family)
	}
	c.queue.noteQueued(bothFamilies...) // a process that starts has all of it to do
	return append(c.queue.collectors(), all, full, partial, programming, succeeded, queued, failures)
}

// programmingBuckets are a quarter and half a second, each second up to a minute,
// then every 5 s up to two minutes, then every 30 s up to five.
func programmingBuckets() []float64 {
	b := prometheus.LinearBuckets(0.25, 0.25, 2)
	b = append(b, prometheus.LinearBuckets(1, 1, 59)...)
	b = append(b, prometheus.LinearBuckets(60, 5, 12)...)
	return append(b, prometheus.LinearBuckets(120, 30, 7)...)
}

// begin forgets the pass before.
func (m *syncMetrics) begin() { m.compared, m.wrote = false, false }

// end observes a pass, if it did anything with the table.
func (m *syncMetrics) end(took time.Duration, failed bool) {
	if !m.compared && !m.wrote {
		return
	}
	m.all.Observe(took.Seconds())
	if m.compared {
		m.full.Observe(took.Seconds())
	} else {
		m.partial.Observe(took.Seconds())
	}
	if failed {
		m.failures.Inc()
	}
}

// failed notes a pass that failed.
func (c *Controller) failed(start time.Time) {
	for _, t := range c.tables {
		t.sync.end(time.Since(start), true)
	}
}

// programmed notes that the kernel has everything that had come in when the pass
// began.
func (c *Controller) programmed(start time.Time) {
	now := time.Now()
	for _, t := range c.tables {
		t.sync.end(now.Sub(start), false)
		t.sync.succeeded().SetToCurrentTime()
		for _, change := range c.triggers {
			if change.family == t.desired.Model() {
				for _, at := range change.times {
					// The time is that of another machine, whose clock may be ahead; a sum
					// that falls would be taken for one that began anew.
					t.sync.programming.Observe(max(0, now.Sub(at).Seconds()))
				}
			}
		}
	}
	clear(c.triggers)
	c.queue.programmed()
}

// queueMetrics are those of what comes in.
type queueMetrics struct {
	services, endpoints prometheus.Counter
	queued              [model.Families]prometheus.Gauge // nil without a table
}

func newQueueMetrics() queueMetrics {
	return queueMetrics{
		services: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_service_changes_total",
			Help: "Changes of Services that have come in.",
		}),
		endpoints: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kubeproxy_sync_proxy_rules_endpoint_changes_total",
			Help: "Changes of EndpointSlices that have come in.",
		}),
	}
}

// collectors are what there is to register of a queue.
func (q *queue) collectors() []prometheus.Collector {
	pending := func(name, help string, number func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			q.mu.Lock()
			defer q.mu.Unlock()
			return float64(number())
		})
	}
	return []prometheus.Collector{
		q.metrics.services, q.metrics.endpoints,
		pending("kubeproxy_sync_proxy_rules_service_changes_pending",
			"Services that have changed and are not programmed yet.",
			func() int { return len(q.pending.services) + q.taken.services }),
		pending("kubeproxy_sync_proxy_rules_endpoint_changes_pending",
			"EndpointSlices that have changed and are not programmed yet.",
			func() int { return len(q.pending.slices) + q.taken.slices }),
	}
}

// noteQueued notes that there is something to do for some families.
func (q *queue) noteQueued(families ...model.Family) {
	for _, f := range families {
		if g := q.metrics.queued[f]; g != nil {
			g.SetToCurrentTime()
		}
	}
}

// programmed says that what take has returned until now is programmed.
func (q *queue) programmed() {
	q.mu.Lock()
	q.taken.services, q.taken.slices = 0, 0
	q.mu.Unlock()
}

// triggers are the times of the changes that led to EndpointSlices as they are, and
// that the kernel does not have yet.
//
// As in kube-proxy, each counts that comes while the process runs, and deleted
// slices do not: their last time is that of another change. There they take those
// of the Service's other slices along; here they do not. A time that a slice had
// before is none, or a list of all slices after a lost connection would bring the
// old ones again.
type triggers map[types.NamespacedName]trigger

type trigger struct {
	family model.Family
	times  []time.Time
}

// maxTriggers bounds the times that are kept of one slice while passes fail.
const maxTriggers = 10

func (t triggers) add(s *model.Slice, times ...time.Time) {
	all := append(t[s.Name].times, times...)
	if len(all) > 0 {
		t[s.Name] = trigger{s.Family, all[:min(len(all), maxTriggers)]}
	}
}

// latest is the last time that was added of a slice.
func (t triggers) latest(s *model.Slice) (at time.Time) {
	if n := len(t[s.Name].times); n > 0 {
		at = t[s.Name].times[n-1]
	}
	return at
}

// noteTriggers notes those of a slice that has come in, before the state has it.
func (c *Controller) noteTriggers(name types.NamespacedName, s *model.Slice, times []time.Time) {
	if s == nil {
		delete(c.triggers, name)
		return
	}
	if was := c.state.Slice(name); was != nil && len(times) > 0 && times[0].Equal(was.Triggered) {
		times = times[1:]
	}
	c.triggers.add(s, times...)
}
