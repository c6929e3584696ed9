// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
)

// retryAfter is how long a node port that could not be listened on waits.
const retryAfter = 5 * time.Second

// Relay listens on loopback and connects who comes there with the Services'
// endpoints. Its methods may be called from any goroutine; mu guards everything
// but what is atomic.
type Relay struct {
	log    *slog.Logger
	ctx    context.Context // of all flows
	cancel context.CancelFunc
	// running are the goroutines of flows and listeners.
	running sync.WaitGroup

	limit      int64 // of flows
	flows      atomic.Int64
	complained atomic.Int64 // when it was last said that there are too many, in s since 1970
	// idle and idleStream are how long UDP flows live without a datagram.
	idle, idleStream time.Duration

	mu       sync.Mutex
	closed   bool
	services map[types.NamespacedName]*service
	ports    map[key]*port
	held     map[*port]bool // by somebody else
	retry    *time.Timer    // nil while nothing is held
	without  map[model.Family]bool
	sctp     bool // was reported
}

// service is a Service that has, or had, a node port.
type service struct {
	name    types.NamespacedName
	created int64
	ports   map[key]model.NodePort
	ctx     context.Context // of its TCP connections
	cancel  context.CancelFunc
}

// New returns a Relay that serves nothing yet.
func New(log *slog.Logger) *Relay {
	r := &Relay{
		log:        log,
		limit:      maxFlows(),
		idle:       idleTime,
		idleStream: idleStreamTime,
		services:   make(map[types.NamespacedName]*service),
		ports:      make(map[key]*port),
		held:       make(map[*port]bool),
		without:    make(map[model.Family]bool),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// maxFlows bounds flows: each is up to six descriptors, two sockets and two pipes,
// of which the rest of the process must keep enough, and any user of the node can
// open connections to loopback.
func maxFlows() int64 {
	const most, descriptors = 8192, 6
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return most
	}
	return int64(min(most, files.Cur/descriptors/2))
}

// Set says that there is a Service, and which node ports it has now; it replaces
// what was said before. It costs what these ports cost, however many others there are.
func (r *Relay) Set(s *model.Service, ports []model.NodePort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.services[s.Name]
	if r.closed || have == nil && len(ports) == 0 {
		return
	}
	if have == nil {
		have = &service{name: s.Name}
		have.ctx, have.cancel = context.WithCancel(r.ctx)
		r.services[s.Name] = have
	}
	before := have.ports
	have.created, have.ports = s.Created, r.byKey(s.Name, ports)
	for k := range before {
		if _, stays := have.ports[k]; !stays {
			r.unclaim(have, k)
		}
	}
	for k := range have.ports {
		r.claim(have, k)
	}
}

// byKey finds the node ports that can be served; of two alike the first counts.
func (r *Relay) byKey(name types.NamespacedName, ports []model.NodePort) map[key]model.NodePort {
	all := make(map[key]model.NodePort, len(ports))
	for _, p := range ports {
		k := key{p.Family, p.Protocol, p.Number}
		if p.Protocol == model.SCTP {
			if !r.sctp {
				r.sctp = true
				r.log.Warn("SCTP node ports are not served on localhost, use the node's address for this and all others",
					"service", name.String(), "port", k.String())
			}
			continue
		}
		if _, twice := all[k]; !twice {
			all[k] = p
		}
	}
	return all
}

// Delete says that a Service is gone. Its connections are reset.
func (r *Relay) Delete(name types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[name]
	if r.closed || s == nil {
		return
	}
	for k := range s.ports {
		r.unclaim(s, k)
	}
	s.cancel()
	delete(r.services, name)
}

// Close resets all connections, stops listening and waits for what is under way.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.cancel()
	if r.retry != nil {
		r.retry.Stop()
	}
	for _, p := range r.ports {
		p.close()
	}
	r.mu.Unlock()
	r.running.Wait()
}

// admit asks for room for one more flow; release gives it back.
func (r *Relay) admit(p *port) bool {
	if r.flows.Add(1) <= r.limit {
		return true
	}
	r.release()
	now, last := time.Now().Unix(), r.complained.Load()
	if now-last >= 60 && r.complained.CompareAndSwap(last, now) {
		r.log.Warn("too many connections to node ports on localhost, more are refused; close some, or use the node's address",
			"limit", r.limit, "port", p.String())
	}
	return false
}

func (r *Relay) release() { r.flows.Add(-1) }
