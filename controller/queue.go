// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
)

// queue is the Sink of the source: it reads objects into our own values in the
// source's goroutine, and keeps the last word on each until the loop takes them
// all. Ten changes of one object cost the loop as much as one.
type queue struct {
	nodeName string
	log      *slog.Logger
	events   Events // nil is nobody
	// proxyName is which proxy this is; empty is the cluster's own.
	proxyName string
	// noExternalIPs leaves them out of Services.
	noExternalIPs bool
	// wake has room for one: whatever was queued, one look takes it all.
	wake chan struct{}

	metrics queueMetrics
	started time.Time // what was triggered before is not ours to measure

	mu      sync.Mutex
	pending changes
	taken   struct{ services, slices int } // that are not programmed yet
	synced  bool
	said    map[types.NamespacedName]string // what was last logged of a Service
}

// changes are objects as they are now; nil ones are gone.
type changes struct {
	services map[types.NamespacedName]*model.Service
	slices   map[types.NamespacedName]*model.Slice
	cidrs    map[string]*model.ServiceCIDR
	node     *model.Node
	nodeGone bool // its object is deleted, which was the last that was said of it
	triggers triggers
}

func newChanges() changes {
	return changes{
		services: make(map[types.NamespacedName]*model.Service),
		slices:   make(map[types.NamespacedName]*model.Slice),
		cidrs:    make(map[string]*model.ServiceCIDR),
		triggers: make(triggers),
	}
}

func newQueue(nodeName string, log *slog.Logger) *queue {
	return &queue{nodeName: nodeName, log: log, wake: make(chan struct{}, 1), pending: newChanges(), said: make(map[types.NamespacedName]string),
		metrics: newQueueMetrics(), started: time.Now()}
}

// take returns what has come in, and whether the source has synced.
func (q *queue) take() (changes, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.pending.services)+len(q.pending.slices)+len(q.pending.cidrs) == 0 && q.pending.node == nil && !q.pending.nodeGone {
		return changes{}, q.synced
	}
	c := q.pending
	q.pending = newChanges()
	q.taken.services += len(c.services)
	q.taken.slices += len(c.slices)
	return c, q.synced
}

// isSynced reports whether the source has told everything.
func (q *queue) isSynced() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.synced
}

// bothFamilies are those of what is not an EndpointSlice.
var bothFamilies = []model.Family{model.IPv4, model.IPv6}

// put changes what is pending for some families and wakes the loop.
func (q *queue) put(change func(*changes), families ...model.Family) {
	q.mu.Lock()
	change(&q.pending)
	q.mu.Unlock()
	q.noteQueued(families...)
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// warn says what is doubtful in a Service, again only when it has changed; nil is
// none.
func (q *queue) warn(name types.NamespacedName, s *model.Service) {
	doubt := ""
	if s != nil {
		doubt = s.Doubt()
	}
	q.mu.Lock()
	before := q.said[name]
	if doubt == "" {
		delete(q.said, name)
	} else {
		q.said[name] = doubt
	}
	q.mu.Unlock()
	if doubt != "" && doubt != before {
		q.log.Warn("Service may not do what is meant", "service", name.String(), "err", doubt)
		warnDoubt(q.events, s)
	}
}

// doubtful lists the Services that a warning holds of.
func (q *queue) doubtful() []types.NamespacedName {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.said))
}

// SetService implements source.Sink.
func (q *queue) SetService(in *corev1.Service) {
	if q.noExternalIPs {
		in.Spec.ExternalIPs = nil // the object is ours
	}
	s, err := model.FromService(in, q.proxyName)
	if err != nil {
		q.log.Warn("Service is invalid in part, that part is left out", "service", in.Namespace+"/"+in.Name, "err", err)
	}
	name := types.NamespacedName{Namespace: in.Namespace, Name: in.Name}
	q.warn(name, s)
	q.metrics.services.Inc()
	q.put(func(c *changes) { c.services[name] = s }, bothFamilies...)
}

// DeleteService implements source.Sink.
func (q *queue) DeleteService(name types.NamespacedName) {
	q.warn(name, nil)
	q.metrics.services.Inc()
	q.put(func(c *changes) { c.services[name] = nil }, bothFamilies...)
}

// SetSlice implements source.Sink.
func (q *queue) SetSlice(in *discoveryv1.EndpointSlice) {
	s, err := model.FromSlice(in, q.nodeName)
	if err != nil {
		q.log.Warn("EndpointSlice is invalid in part, that part is left out", "slice", in.Namespace+"/"+in.Name, "err", err)
	}
	name := types.NamespacedName{Namespace: in.Namespace, Name: in.Name}
	if s == nil {
		q.put(func(c *changes) {
			c.slices[name] = nil
			delete(c.triggers, name)
		})
		return
	}
	q.metrics.endpoints.Inc()
	q.put(func(c *changes) {
		c.slices[name] = s
		if s.Triggered.After(q.started) && !s.Triggered.Equal(c.triggers.latest(s)) {
			c.triggers.add(s, s.Triggered)
		}
	}, s.Family)
}

// DeleteSlice implements source.Sink.
func (q *queue) DeleteSlice(name types.NamespacedName) {
	q.metrics.endpoints.Inc()
	q.put(func(c *changes) {
		c.slices[name] = nil
		delete(c.triggers, name)
	}, bothFamilies...)
}

// SetNode implements source.Sink.
func (q *queue) SetNode(n *corev1.Node) {
	node := model.FromNode(n)
	q.put(func(c *changes) { c.node, c.nodeGone = &node, false }, bothFamilies...)
}

// DeleteNode implements source.Sink.
func (q *queue) DeleteNode() {
	q.put(func(c *changes) { c.nodeGone = true }, bothFamilies...)
}

// SetServiceCIDR implements source.Sink.
func (q *queue) SetServiceCIDR(in *networkingv1.ServiceCIDR) {
	s, err := model.FromServiceCIDR(in)
	if err != nil {
		q.log.Warn("ServiceCIDR is invalid in part, that part is left out", "servicecidr", in.Name, "err", err)
	}
	q.put(func(c *changes) { c.cidrs[in.Name] = s }, bothFamilies...)
}

// DeleteServiceCIDR implements source.Sink.
func (q *queue) DeleteServiceCIDR(name string) {
	q.put(func(c *changes) { c.cidrs[name] = nil }, bothFamilies...)
}

// Synced implements source.Sink.
func (q *queue) Synced() {
	q.mu.Lock()
	q.synced = true
	q.mu.Unlock()
	q.signal()
}
