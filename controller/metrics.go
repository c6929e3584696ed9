// SPDX-License-Identifier: Apache-2.0

package controller

import (
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
	if r := c.config.Counts; r != nil {
		r.MustRegister(commits, c.metrics.resyncs, drifts)
	}
	sync := append(c.measureSync(), c.measureRepairs()...)
	if r := c.config.Metrics; r != nil {
		r.MustRegister(sync...)
		r.MustRegister(commits, c.metrics.duration, c.metrics.resyncs, noLocal, conflicts, drifts, elements)
		if c.config.Clients != nil {
			r.MustRegister(newClients(c.config.Clients, c.tables, c.log))
		}
		if c.config.ServiceConnections != nil {
			r.MustRegister(newConnections(c.config.ServiceConnections, c.config.ServiceConnectionsLimit, c.tables, c.log))
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
