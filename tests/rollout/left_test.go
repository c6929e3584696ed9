// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/kube-nft/kube-nft/tests/process"
)

// TestLeftBehind has Services change on nodes where the rules of a proxy that has
// stopped are still there, as they are before the cleanup, in both directions.
func TestLeftBehind(t *testing.T) {
	needIptables(t)
	s := newSite(t, 2)
	s.createPod(s.nodes[1], "web")
	proxies := []*process.Process{s.startProxy(s.nodes[0], "nftables"), s.startProxy(s.nodes[1], "iptables")}
	for _, n := range s.nodes {
		s.awaitProxy(n)
	}
	toOurs := s.newChanges("to-ours", "203.0.113.1", "2001:db8:113::1")
	for _, p := range proxies {
		p.End(syscall.SIGTERM)
	}
	agents := s.runAgents()
	toOurs.make()
	// The chains that came last are asked first. kube-proxy in nftables mode drops who
	// is left out before the translation, in iptables mode after it.
	toOurs.check([]left{{keepsOut: true}, {}})
	for _, n := range s.nodes {
		s.cleanProxy(n)
	}
	toOurs.check(nil)

	back := s.newChanges("back", "203.0.113.2", "2001:db8:113::2")
	for _, agent := range agents {
		agent.End(syscall.SIGTERM)
	}
	s.startProxy(s.nodes[0], "nftables")
	s.startProxy(s.nodes[1], "iptables")
	for _, n := range s.nodes {
		s.awaitProxy(n)
	}
	back.make()
	// In iptables mode the chains of iptables are older than kube-nft's: they stay when
	// kube-proxy cleans up, as they do where somebody else uses them.
	back.check([]left{{keepsOut: true}, {first: true, keepsOut: true}})
	for _, n := range s.nodes {
		s.cleanAgent(n)
	}
	back.check(nil)
}

// changes are Services, one for each kind of change, that are served as they were
// before it.
type changes struct {
	s                        *site
	name                     string
	gone, comes, moves, open service
	old, late, newer         *pod
}

// Source ranges that leave the client out, or let it in.
const (
	withoutClient = `loadBalancerSourceRanges: [198.51.100.0/24, "2001:db8:ffff::/64"]`
	withClient    = `loadBalancerSourceRanges: [192.0.2.100/32, "2001:db8::100/128"]`
)

// newChanges makes the Services, and waits until they are served.
func (s *site) newChanges(name string, balancer ...string) *changes {
	s.t.Helper()
	c := &changes{s: s, name: name}
	c.gone = s.apply("gone-"+name, "web")
	c.comes = s.apply("comes-"+name, "late-"+name, "type: NodePort")
	c.moves = s.apply("moves-"+name, "moves-"+name, "type: NodePort")
	s.apply("open-"+name, "web", "type: LoadBalancer", withoutClient)
	c.open = s.balance("open-"+name, balancer...)
	c.old = s.createPod(s.nodes[0], "moves-"+name)
	for _, n := range s.nodes {
		s.seen(n, c.gone, s.podsOf("web")...)
		s.seen(n, c.moves, c.old)
		s.seen(n, c.comes)
		s.seen(n, c.open, s.podsOf("web")...)
		s.asked(n, c.open)
	}
	return c
}

// make changes them.
func (c *changes) make() {
	s := c.s
	s.t.Helper()
	c.late, c.newer = s.createPod(s.nodes[1], "late-"+c.name), s.createPod(s.nodes[1], "moves-"+c.name)
	s.reapPod(c.old)
	s.kubectl("", "delete", "service", c.gone.name)
	s.apply(c.open.name, "web", "type: LoadBalancer", withClient)
}

// left is what the rules of the proxy that has stopped still do on a node. A Service
// that is gone is translated by them in any case.
type left struct {
	first    bool // they are asked first: endpoints are as they were
	keepsOut bool // clients that the source ranges have left out
}

// check waits until the Services are served as they are now, but for what is left; nil
// is after the cleanup.
func (c *changes) check(rests []left) {
	s := c.s
	s.t.Helper()
	for i, n := range s.nodes {
		var rest left
		moves, open, gone := c.newer, s.podsOf("web"), []*pod(nil)
		if rests != nil {
			rest, gone = rests[i], s.podsOf("web")
		}
		if rest.first {
			moves = c.old
		}
		if rest.keepsOut {
			open = nil
		}
		s.seen(n, c.comes, c.late)
		s.seen(n, c.moves, moves)
		s.seen(n, c.gone, gone...)
		for f := range families {
			s.Answers(soon, s.client, "tcp", c.comes.atNode(n, "tcp", f), c.late.Name())
			s.Answers(soon, s.client, "udp", c.moves.atNode(n, "udp", f), moves.Name())
		}
		s.asked(n, c.open, open...)
	}
}

// asked waits until these pods answer the client at a Service's load balancer, whose
// packets come to a node.
func (s *site) asked(n *node, to service, pods ...*pod) {
	s.t.Helper()
	for f := range families {
		s.via(n, to.balancer[f])
		s.Answers(soon, s.client, "tcp", netip.AddrPortFrom(to.balancer[f], to.port), names(pods)...)
	}
}
