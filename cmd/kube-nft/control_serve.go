// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
)

// statusAnswer is the answer to GET /v1/status.
type statusAnswer struct {
	Version string `json:"version"`
	// PID is the process's in its own PID namespace.
	PID              int       `json:"pid"`
	Started          time.Time `json:"started"`
	Node             string    `json:"node"`
	Zone             string    `json:"zone,omitempty"`
	ServiceProxyName string    `json:"serviceProxyName,omitempty"`
	// Synced: the API server or the manifests have told everything.
	Synced bool `json:"synced"`
	// Programmed: the tables are what they should be, as far as is known.
	Programmed bool          `json:"programmed"`
	Failing    bool          `json:"failing"`
	LastCommit *time.Time    `json:"lastCommit,omitempty"`
	Services   int           `json:"services"`
	Tables     []tableAnswer `json:"tables"`
}

// tableAnswer is one family's table.
type tableAnswer struct {
	Family        string `json:"family"` // ip or ip6
	Programmed    bool   `json:"programmed"`
	Elements      int    `json:"elements"`
	Conflicts     int    `json:"conflicts"`
	MasqueradeBit uint8  `json:"masqueradeBit"`
	MasqueradeAll bool   `json:"masqueradeAll"`
	// LocalPods is a CIDR, or an interface's name, with an asterisk how it begins.
	LocalPods    string `json:"localPods,omitempty"`
	AllNodePorts bool   `json:"allNodePorts"`
	Counters     bool   `json:"counters"`
}

// control answers the other commands about a controller.
type control struct {
	controller *controller.Controller
	proxyName  string
	started    time.Time
}

// askWithin bounds how long an answer may wait for the loop, which may be in the
// midst of a large transaction.
const askWithin = 30 * time.Second

func (c *control) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		var s controller.Status
		if c.ask(w, r, func(f controller.Facts) { s = f.Status() }) {
			answer(w, c.status(s))
		}
	})
	mux.HandleFunc("GET /v1/services/{namespace}/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := types.NamespacedName{Namespace: r.PathValue("namespace"), Name: r.PathValue("name")}
		var s explain.Service
		if c.ask(w, r, func(f controller.Facts) { s = explain.OfService(f, name) }) {
			answer(w, s)
		}
	})
	mux.HandleFunc("GET /v1/frontend", c.frontend)
	return mux
}

// frontend answers who claims ?address=…&port=…&protocol=….
func (c *control) frontend(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	at, err := netip.ParseAddr(q.Get("address"))
	port, portErr := strconv.ParseUint(q.Get("port"), 10, 16)
	proto, protoErr := parseProto(cmp.Or(q.Get("protocol"), "tcp"))
	if err := errors.Join(err, portErr, protoErr); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var found explain.Frontend
	if c.ask(w, r, func(f controller.Facts) {
		found = explain.OfFrontend(f, netip.AddrPortFrom(at.Unmap(), uint16(port)), proto)
	}) {
		answer(w, found)
	}
}

// ask asks the controller, and reports whether it answered.
func (c *control) ask(w http.ResponseWriter, r *http.Request, question func(controller.Facts)) bool {
	ctx, cancel := context.WithTimeout(r.Context(), askWithin)
	defer cancel()
	err := c.controller.Ask(ctx, question)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
	return err == nil
}

// answer writes an answer; who asked may have gone.
func answer(w http.ResponseWriter, what any) {
	body, err := json.Marshal(what)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}

func (c *control) status(s controller.Status) statusAnswer {
	a := statusAnswer{Version: version(), PID: os.Getpid(), Started: c.started, Node: s.Node, Zone: s.Zone, ServiceProxyName: c.proxyName,
		Synced: s.Synced, Programmed: s.Programmed, Failing: s.Failing, Services: s.Services}
	if !s.Changed.IsZero() {
		a.LastCommit = &s.Changed
	}
	for _, t := range s.Tables {
		a.Tables = append(a.Tables, tableAnswer{Family: t.Family.String(), Programmed: t.Programmed, Elements: t.Elements, Conflicts: t.Conflicts,
			MasqueradeBit: t.Options.MasqueradeBit, MasqueradeAll: t.Options.MasqueradeAll, LocalPods: podsText(t.Options.LocalPods),
			AllNodePorts: t.Options.AllNodePorts, Counters: t.Options.Counters})
	}
	return a
}

// podsText says how packets of local pods are known; "" is not at all.
func podsText(p nft.LocalPods) string {
	if p.Prefix.IsValid() {
		return p.Prefix.String()
	}
	return p.Interface
}

// serveControl answers at the control socket until ctx ends. Without a listener, since
// a stranger has the name, it waits until that can be had.
func (r *runner) serveControl(ctx context.Context, l net.Listener, c *controller.Controller) {
	handler := (&control{controller: c, proxyName: r.options.proxyName, started: time.Now()}).handler()
	r.running.Go(func() {
		for l == nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(controlAgain):
			}
			var err error
			if l, err = r.retakeControl(ctx); err != nil {
				r.fail(err)
				return
			}
		}
		if err := serveOn(ctx, l, handler); err != nil {
			r.log.Error("the control socket fails: commands cannot ask this kube-nft any more", "err", err)
		}
	})
}

// retakeControl tries once more to have the socket. A kube-nft that got it first is the
// one of the namespace, and this one has to go.
func (r *runner) retakeControl(ctx context.Context) (net.Listener, error) {
	l, err := net.Listen("unix", controlName)
	if err == nil {
		r.log.Info("the control socket is free now, and this kube-nft has it", "socket", controlName)
		return trustedListener{l}, nil
	}
	who, err := holderOf(ctx)
	if err == nil && !who.stranger() {
		return nil, held(ctx, who)
	}
	return nil, nil
}
