// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// target is what is asked.
type target struct {
	kind    kind
	network string
	at      netip.AddrPort
	sticky  bool // sessionAffinity: which endpoint answers is left to chance
	flow    bool // asked from a port that had asked before something changed
}

// kind is what a target is to its Service.
type kind string

const (
	clusterIP    kind = "ClusterIP"
	unusedPort   kind = "unused port of the ClusterIP"
	nodePort     kind = "node port"
	nodePortElse kind = "node port at another address"
	nodePortLoop kind = "node port at localhost"
	externalIP   kind = "external IP"
	balancerIP   kind = "load balancer IP"
	unallocated  kind = "address that no Service has here"
)

// isFrontend reports whether the Service is served there, as far as it is served.
func (k kind) isFrontend() bool {
	return k == clusterIP || k == nodePort || k == externalIP || k == balancerIP
}

// targets are the frontends of a Service, and what is next to them.
func (p *plan) targets() (all []target) {
	add := func(k kind, port port, addr netip.Addr, number int32) {
		network := strings.ToLower(string(port.protocol))
		all = append(all, target{kind: k, network: network, at: netip.AddrPortFrom(addr, uint16(number)), sticky: p.affinity > 0})
	}
	const unused = 7
	service := p.service()
	for i, port := range p.portList() {
		for f, addr := range p.clusterIPs() {
			if p.isServed() && slices.Contains(service.Spec.ClusterIPs, addr.String()) {
				add(clusterIP, port, addr, port.number)
				add(unusedPort, port, addr, unused)
			} else {
				add(unallocated, port, addr, port.number)
			}
			add(nodePort, port, nodeAddrs[f], port.nodePort)
			if service.Spec.Ports[i].NodePort != 0 {
				add(nodePortElse, port, otherAddrs[f], port.nodePort)
				add(nodePortLoop, port, localhost[f], port.nodePort)
			}
		}
		for _, ip := range service.Spec.ExternalIPs {
			add(externalIP, port, netip.MustParseAddr(ip), port.number)
		}
		for _, in := range p.status() {
			if in.IP != "" {
				add(balancerIP, port, netip.MustParseAddr(in.IP), port.number)
			}
		}
	}
	return all
}

// result is what came of asking a target several times. The kinds of outcomes are
// what counts, not how often each came.
type result map[string]int

func (r result) String() string {
	return strings.Join(slices.Sorted(maps.Keys(r)), ", ")
}

// same reports whether two results consist of the same outcomes.
func (r result) same(other result) bool {
	return slices.Equal(slices.Sorted(maps.Keys(r)), slices.Sorted(maps.Keys(other)))
}

// answered reports whether somebody did.
func (r result) answered() bool {
	for outcome := range r {
		if strings.Contains(outcome, seen) {
			return true
		}
	}
	return false
}

const (
	seen             = " sees "
	timeout          = "no answer"
	filtered         = "filtered" // by its own host, as UDP is told
	oneEndpoint      = "one endpoint"
	severalEndpoints = "several endpoints"
)

// failure returns how a question failed. Clients of SCTP in one namespace hear each
// other's ICMP messages.
func failure(err error, network string) string {
	var cause string
	if icmp := new(netlab.ICMPError); errors.As(err, &icmp) && network != "sctp" {
		cause = " by " + icmp.Error()
	}
	switch {
	case errors.Is(err, netlab.ErrTimeout):
		return timeout
	case errors.Is(err, netlab.ErrFiltered):
		return filtered
	case errors.Is(err, netlab.ErrRefused):
		return "refused" + cause
	case errors.Is(err, netlab.ErrUnreachable):
		return "unreachable" + cause
	case errors.Is(err, netlab.ErrReset):
		return "reset"
	}
	return fmt.Sprintf("error: %v", err)
}

// How long and how often to ask. What is the same after the first round is believed;
// what differs is asked again with more patience, since on a busy machine an answer
// may be late, and one endpoint of several may be missed.
var rounds = []struct {
	patience time.Duration
	asks     int
}{
	{300 * time.Millisecond, 12},
	{time.Second, 40},
	{2 * time.Second, 80},
}

// compare asks the same of both sites until they agree, and returns the last results.
func (w *twins) compare(p probe) (ours, theirs result) {
	for _, round := range rounds {
		ours = w.ours.ask(w.t.Context(), p.from, p.to, round.asks, round.patience)
		theirs = w.theirs.ask(w.t.Context(), p.from, p.to, round.asks, round.patience)
		if ours.same(theirs) || explain(divergence{p, ours, theirs}) != nil {
			break
		}
	}
	return ours, theirs
}

// ask asks so many times at most. It gives up when two questions have failed and none
// has been answered, and when it has waited in vain three times.
func (s *site) ask(ctx context.Context, from string, to target, times int, patience time.Duration) result {
	r := result{}
	for i := range times {
		a, err := s.clients[from].Ask(ctx, to.network, to.at, netlab.Timeout(patience))
		if err != nil {
			r[failure(err, to.network)]++
		} else {
			r[a.Server+seen+cmp.Or(s.who[a.Source.Addr()], a.Source.Addr().String())]++
		}
		if i > 0 && !r.answered() || r[timeout] > 2 {
			break
		}
	}
	if to.sticky {
		return r.anonymous()
	}
	return r
}

// anonymous replaces the answers by how many endpoints gave them.
func (r result) anonymous() result {
	servers, out := make(map[string]bool), result{}
	for outcome, n := range r {
		if server, _, ok := strings.Cut(outcome, seen); ok {
			servers[server] = true
		} else {
			out[outcome] = n
		}
	}
	switch len(servers) {
	case 0:
	case 1:
		out[oneEndpoint] = 1
	default:
		out[severalEndpoints] = len(servers)
	}
	return out
}
