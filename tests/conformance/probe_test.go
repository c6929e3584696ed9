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
	unallocIP    kind = "unallocated address"
)

// targets are the frontends of a Service, and what is next to them.
func (p *plan) targets() (all []target) {
	add := func(k kind, port port, addr netip.Addr, number int32) {
		network := strings.ToLower(string(port.protocol))
		all = append(all, target{k, network, netip.AddrPortFrom(addr, uint16(number)), p.affinity > 0})
	}
	const unused = 7
	service := p.service()
	for i, port := range p.portList() {
		for f := range families {
			add(clusterIP, port, p.clusterIPs()[f], port.number)
			if i < 2 {
				add(unusedPort, port, p.clusterIPs()[f], unused)
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
	seen    = " sees "
	timeout = "no answer"
)

// ask asks once and adds the outcome.
func (r result) ask(ctx context.Context, s *site, from string, to target, patience time.Duration) {
	a, err := s.clients[from].Ask(ctx, to.network, to.at, netlab.Timeout(patience))
	if err != nil {
		r[failure(err)]++
		return
	}
	r[a.Server+seen+cmp.Or(s.who[a.Source.Addr()], a.Source.Addr().String())]++
}

// failure returns how a question failed.
func failure(err error) string {
	icmp := new(netlab.ICMPError)
	var cause string
	if errors.As(err, &icmp) {
		cause = " by " + icmp.Error()
	}
	switch {
	case errors.Is(err, netlab.ErrTimeout):
		return timeout
	case errors.Is(err, netlab.ErrFiltered): // by its own host, as UDP is told
		return "filtered"
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
	{3 * time.Second, 80},
}

// compare asks the same of both sites until they agree, and returns the last results.
func (w *twins) compare(from string, to target) (ours, theirs result) {
	for _, round := range rounds {
		ours, theirs = result{}, result{}
		for i := range round.asks {
			ours.ask(w.t.Context(), w.ours, from, to, round.patience)
			theirs.ask(w.t.Context(), w.theirs, from, to, round.patience)
			if i > 0 && !ours.answered() && !theirs.answered() {
				break
			}
		}
		if to.sticky {
			ours, theirs = ours.anonymous(), theirs.anonymous()
		}
		if ours.same(theirs) {
			break
		}
	}
	return ours, theirs
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
		out["one endpoint"] = 1
	default:
		out["several endpoints"] = len(servers)
	}
	return out
}
