// SPDX-License-Identifier: Apache-2.0

package health

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
)

// Services listens at the health check node ports of Services under the external
// policy Local (KEP-27, spec.healthCheckNodePort), for each family by itself. Its
// methods do not wait.
type Services struct {
	log *slog.Logger
	// failed is told of a port that could not be had. Nil is nobody.
	failed func(s *model.Service, at string, err error)
	// again is how long a port that could not be had waits for the next try.
	again time.Duration

	// healthy says whether the tables can be relied on. While they cannot, everybody
	// is told to send nothing.
	healthy func() bool
	// limit bounds the connections to all ports together.
	limit *Limit

	mu       sync.Mutex
	addrs    [model.Families][]netip.Addr // to listen at; the unspecified one is everywhere
	services map[key]*service
	retry    *time.Timer // nil if nothing is to be tried again
	closed   bool
}

type key struct {
	name   types.NamespacedName
	family model.Family
}

// service is a Service in one family.
type service struct {
	name      types.NamespacedName
	of        *model.Service // as it is now
	endpoints atomic.Int64   // ready ones on this node
	healthy   func() bool
	listeners map[netip.AddrPort]*listener
	said      map[netip.AddrPort]string // what was last logged of an address that could not be had
}

// maxConnections is plenty for load balancers, which ask and go.
const maxConnections = 256

// New returns Services that has none; healthy says whether the tables can be relied
// on, and is asked each time that somebody asks. failed may be nil.
func New(log *slog.Logger, healthy func() bool, failed func(s *model.Service, at string, err error)) *Services {
	return &Services{log: log, healthy: healthy, failed: failed, again: 5 * time.Second, limit: NewLimit(maxConnections), services: make(map[key]*service)}
}

// SetAddrs says at which addresses of a family to listen: those that node ports are
// served on, or the unspecified address for all.
func (s *Services) SetAddrs(f model.Family, addrs []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(s.addrs[f], addrs) {
		return
	}
	s.addrs[f] = addrs
	s.listenAll()
}

// Set says how many ready endpoints of a Service in a family are on this node. A
// Service without a health check node port is none here.
func (s *Services) Set(of *model.Service, f model.Family, endpoints int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{of.Name, f}
	one := s.services[k]
	if s.closed || of.HealthCheckNodePort == 0 || !of.ClusterIPs[f].IsValid() {
		s.drop(k)
		return
	}
	if one == nil {
		one = &service{name: of.Name, healthy: s.healthy, listeners: make(map[netip.AddrPort]*listener), said: make(map[netip.AddrPort]string)}
		s.services[k] = one
	}
	one.of = of
	one.endpoints.Store(int64(endpoints))
	s.listen(k.family, one)
}

// Delete says that a Service is gone; there may have been none.
func (s *Services) Delete(name types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range model.Family(model.Families) {
		s.drop(key{name, f})
	}
}

// Close ends it all.
func (s *Services) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.retry != nil {
		s.retry.Stop()
	}
	for k := range s.services {
		s.drop(k)
	}
}

func (s *Services) drop(k key) {
	if one := s.services[k]; one != nil {
		for _, l := range one.listeners {
			l.close()
		}
		delete(s.services, k)
	}
}

// listenAll brings every Service's listeners up to date.
func (s *Services) listenAll() {
	for k, one := range s.services {
		s.listen(k.family, one)
	}
}

// listen opens the listeners that a Service lacks, and closes those that it should
// not have. One that cannot be had is tried again after a while.
func (s *Services) listen(f model.Family, one *service) {
	want := make(map[netip.AddrPort]bool)
	for _, a := range s.addrs[f] {
		want[netip.AddrPortFrom(a, one.of.HealthCheckNodePort)] = true
	}
	for at, l := range one.listeners {
		if !want[at] {
			l.close()
			delete(one.listeners, at)
		}
	}
	maps.DeleteFunc(one.said, func(at netip.AddrPort, _ string) bool { return !want[at] })
	for at := range want {
		if one.listeners[at] != nil {
			continue
		}
		if err := one.open(f, at, s.limit); err != nil {
			s.refused(one, at, err)
			continue
		}
		delete(one.said, at)
	}
}

// refused says once that an address cannot be had, and has it tried again.
func (s *Services) refused(one *service, at netip.AddrPort, err error) {
	if one.said[at] != err.Error() {
		one.said[at] = err.Error()
		s.log.Warn("cannot listen for the load balancer's health checks, will try again; see what has the port: ss -tlnp",
			"service", one.of.Name.String(), "address", at.String(), "err", err)
		if s.failed != nil {
			s.failed(one.of, at.String(), err)
		}
	}
	if s.retry != nil || s.closed {
		return
	}
	s.retry = time.AfterFunc(s.again, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.retry = nil; !s.closed {
			s.listenAll()
		}
	})
}

// open listens at an address.
func (one *service) open(f model.Family, at netip.AddrPort, limit *Limit) error {
	network := "tcp4"
	if f == model.IPv6 {
		network = "tcp6"
	}
	l, err := net.Listen(network, at.String())
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err // the rest is said beside it
		}
		return err
	}
	server := &http.Server{
		Handler:           one,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    1 << 14,
		ConnState:         limit.ConnState,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, 0), // of clients that misbehave
	}
	one.listeners[at] = &listener{socket: l, server: server}
	go server.Serve(l) // ends with Close
	return nil
}

// listener is where a service is asked. Its port is free once it is closed, also if the
// server has not begun to serve, and would close it only then.
type listener struct {
	socket net.Listener
	server *http.Server
}

func (l *listener) close() {
	l.socket.Close()
	l.server.Close()
}

// answer is what a load balancer reads, as kube-proxy writes it.
type answer struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int64 `json:"localEndpoints"`
	ServiceProxyHealthy bool  `json:"serviceProxyHealthy"`
}

// ServeHTTP answers at any path: 200 if this node is to get connections, else 503.
func (one *service) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	a := answer{LocalEndpoints: one.endpoints.Load(), ServiceProxyHealthy: one.healthy()}
	a.Service.Namespace, a.Service.Name = one.name.Namespace, one.name.Name
	body, err := json.Marshal(a)
	if err != nil {
		panic(err) // two strings, a number and a truth
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(a.LocalEndpoints, 10))
	if a.LocalEndpoints == 0 || !a.ServiceProxyHealthy {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(body) // who asked may have gone
}
