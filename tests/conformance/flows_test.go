// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// flow is one question that is asked over and over from the same port, in both sites.
type flow struct {
	probe
	conns [2]*netlab.Conn
}

// openFlow asks for the first time. That may be in vain: UDP has a connection all the
// same.
func (w *twins) openFlow(p probe) *flow {
	w.t.Helper()
	p.to.flow = true
	f := &flow{probe: p}
	patience := 300 * time.Millisecond
	if p.to.network == "tcp" {
		patience = 3 * time.Second // these are asked of what answers; TCP sends again after one
	}
	for i, s := range w.sites() {
		c, err := s.clients[p.from].Dial(w.t.Context(), p.to.network, p.to.at, netlab.Timeout(patience))
		w.Must(err)
		w.t.Cleanup(func() { c.Close() })
		f.conns[i] = c
		_, _ = c.Ask(w.t.Context())
	}
	return f
}

// openFlows opens flows to a Service's frontends: of UDP to all, of TCP to those that
// answer, which are none if the Service is not there yet.
func (w *twins) openFlows(p *plan, there bool) (flows []*flow) {
	w.t.Helper()
	isServed := there && len(p.slices[0]) > 0 && p.slices[0][0].pod == "a"
	for _, to := range p.targets() {
		if !to.kind.isFrontend() || to.network == "tcp" && !isServed {
			continue
		}
		for _, from := range []string{"client", nodeName, "b"} {
			flows = append(flows, w.openFlow(probe{p, from, to}))
		}
	}
	return flows
}

// compare asks again until both sites agree. What conntrack has is cleaned up a little
// after what leads to a new endpoint.
func (f *flow) compare(w *twins) (ours, theirs result) {
	_ = netlab.Poll(10*time.Second, func() error {
		ours, theirs = f.ask(w.t.Context(), w.ours, f.conns[0]), f.ask(w.t.Context(), w.theirs, f.conns[1])
		if !ours.same(theirs) {
			return errors.New("they differ")
		}
		return nil
	})
	return ours, theirs
}

func (f *flow) ask(ctx context.Context, s *site, c *netlab.Conn) result {
	a, err := c.Ask(ctx)
	if err != nil {
		return result{failure(err, f.to.network): 1}
	}
	return result{a.Server + seen + cmp.Or(s.who[a.Source.Addr()], a.Source.Addr().String()): 1}
}

var onlyA, onlyC = one(endpoint{pod: "a"}), one(endpoint{pod: "c"})

// flowCases are a Service's endpoints while flows are opened, and after.
var flowCases = []struct {
	name          string
	before, after [][]endpoint
	etp           bool
}{
	{name: "replaced", before: onlyA, after: onlyC},
	{name: "replaced-etp", before: onlyA, after: one(endpoint{pod: "b"}), etp: true},
	{name: "to-zero", before: onlyA, after: one()},
	{name: "to-nothing", before: onlyA, after: nil},
	{name: "to-zero-here", before: onlyA, after: onlyC, etp: true},
	{name: "ends", before: onlyA, after: one(endpoint{pod: "a", state: terminating}, endpoint{pod: "c"})},
	{name: "ended", before: onlyA, after: one(endpoint{pod: "a", state: gone}, endpoint{pod: "c"})},
	{name: "unready", before: onlyA, after: one(endpoint{pod: "a", state: starting}, endpoint{pod: "c"})},
	{name: "hinted-away", before: onlyA, after: one(endpoint{pod: "a", zones: []string{"zone-b"}}, endpoint{pod: "c", zones: []string{"zone-a"}})},
	{name: "from-zero", before: one(), after: onlyA},
	{name: "from-zero-here", before: onlyC, after: one(endpoint{pod: "a"}, endpoint{pod: "c"}), etp: true},
}

// TestFlows compares what becomes of connections when their endpoints change (A3.13,
// A4.1 to A4.6).
func TestFlows(t *testing.T) {
	t.Parallel()
	w := newTwins(t, defaults)
	var plans []*plan
	for i, tt := range flowCases {
		p := &plan{name: "flow-" + tt.name, index: i + 1, typ: typeLoadBalancer, etp: tt.etp, external: []string{"own"}, ingress: own, slices: tt.before}
		w.write(p)
		plans = append(plans, p)
	}
	late := &plan{name: "flow-late", index: 200, typ: typeLoadBalancer, external: []string{"own"}, ingress: own, slices: onlyA}
	w.settle()

	all := append(plans, late)
	var flows []*flow
	for _, p := range all {
		flows = append(flows, w.openFlows(p, p != late)...)
	}
	for i, tt := range flowCases {
		plans[i].slices = tt.after
		w.write(plans[i])
	}
	w.write(late)
	w.settle()
	w.settle() // what one pass leaves to be cleaned up is clean before the next one
	w.report(w.each(len(flows), func(i int) (probe, result, result) {
		ours, theirs := flows[i].compare(w)
		return flows[i].probe, ours, theirs
	}))
	checkDifferences(t, all)
	t.Logf("%d flows", len(flows))
}
