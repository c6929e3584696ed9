// SPDX-License-Identifier: Apache-2.0

package health

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/kube-nft/kube-nft/controller/model"
)

// Proxy answers for the node. The controller tells it how far the tables follow, as
// controller.Health. Its methods may be called from several goroutines and do not
// wait.
type Proxy struct {
	families []model.Family
	// asks is whether a node object must be there, as in a cluster, for the node to
	// get new connections.
	asks bool
	now  func() time.Time
	// count is told of each answer of healthz and livez. Nil is nobody.
	count func(path string, code int)

	mu      sync.Mutex
	timeout time.Duration
	begun   time.Time // of the first pass since the last one that succeeded; zero is none
	updated time.Time // when a pass last succeeded; zero is never
	known   bool      // that there is a node object
	leaving bool
}

// NewProxy returns a Proxy for tables of some families. What has come in may wait for
// timeout until the tables cannot be relied on. cluster says that there should be a
// node object. count may be nil.
func NewProxy(families []model.Family, timeout time.Duration, cluster bool, count func(path string, code int)) *Proxy {
	return &Proxy{families: families, timeout: timeout, asks: cluster, now: time.Now, count: count}
}

// SetTimeout replaces the timeout.
func (p *Proxy) SetTimeout(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timeout = d
}

// Begun implements controller.Health.
func (p *Proxy) Begun() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun.IsZero() {
		p.begun = p.now()
	}
}

// Updated implements controller.Health.
func (p *Proxy) Updated() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun, p.updated = time.Time{}, p.now()
}

// SetNode implements controller.Health.
func (p *Proxy) SetNode(known, leaving bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.leaving = known, leaving
}

// Healthy reports whether the tables can be relied on: nothing that has come in has
// been waiting for longer than the timeout. Before the first pass they can, as in
// kube-proxy: what an earlier process has programmed still serves. Unlike there, a
// first pass that goes on failing is not healthy for ever.
func (p *Proxy) Healthy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.healthy()
}

func (p *Proxy) healthy() bool {
	return p.begun.IsZero() || p.now().Sub(p.begun) < p.timeout
}

// eligible reports whether the node should get new connections from load balancers
// (KEP-3836).
func (p *Proxy) eligible() bool { return !p.leaving && (p.known || !p.asks) }

// state is what is answered, as kube-proxy writes it.
type state struct {
	LastUpdated  time.Time              `json:"lastUpdated"`
	CurrentTime  time.Time              `json:"currentTime"`
	NodeEligible *bool                  `json:"nodeEligible,omitempty"`
	Healthy      bool                   `json:"healthy"`
	Status       map[string]familyState `json:"status,omitempty"`
}

type familyState struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

// Handler serves /healthz, /livez and /readyz.
func (p *Proxy) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, "/healthz", p.health) })
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, "/livez", p.life) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, "/readyz", p.readiness) })
	return mux
}

// health is what load balancers ask: the node must be one that stays, too.
func (p *Proxy) health() (state, bool) {
	s := p.state()
	eligible := p.eligible()
	s.NodeEligible = &eligible // "healthy" is about the tables alone, as in kube-proxy
	return s, s.Healthy && eligible
}

// life is what the kubelet asks: a node that is leaving is no reason to restart.
func (p *Proxy) life() (state, bool) {
	s := p.state()
	return s, s.Healthy
}

// readiness is true once all is programmed that was there at the start. kube-proxy
// has none; a rolling update waits for it before it goes on to the next node.
func (p *Proxy) readiness() (state, bool) {
	s := p.state()
	return s, s.Healthy && !p.updated.IsZero()
}

// state is called with the lock.
func (p *Proxy) state() state {
	s := state{LastUpdated: p.updated, CurrentTime: p.now(), Healthy: p.healthy()}
	if p.updated.IsZero() {
		return s
	}
	s.Status = make(map[string]familyState)
	for _, f := range p.families {
		s.Status[f.String()] = familyState{p.updated, s.Healthy}
	}
	return s
}

// answer writes what of says, 200 or 503.
func (p *Proxy) answer(w http.ResponseWriter, path string, of func() (state, bool)) {
	p.mu.Lock()
	s, good := of()
	p.mu.Unlock()
	code := http.StatusServiceUnavailable
	if good {
		code = http.StatusOK
		if path != "/readyz" {
			// Of old it was when kube-proxy last looked, whether there was anything to
			// do or not, and readers take it for a sign of life.
			s.LastUpdated = s.CurrentTime
		}
	}
	if p.count != nil {
		p.count(path, code)
	}
	body, err := json.Marshal(s)
	if err != nil {
		panic(err) // times and truths
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(body) // who asked may have gone
}
