// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"testing"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestServices has kubectl make Services of every type for pods on five nodes. Every
// node, a pod behind each, and a client outside reach them in all ways, and what the
// endpoints are follows the pods.
func TestServices(t *testing.T) {
	s := newSite(t, 5)
	for _, n := range s.nodes {
		s.createPod(n, "web")
		s.createPod(n, "shop")
	}
	s.runAgents()

	s.testExpose()
	s.testTypes(t)
	s.testScale()
	s.testAffinity()
}

// askers are all who may ask for a Service inside of the cluster: each node, and a
// pod behind it.
func (s *site) askers() (all []*netlab.Namespace) {
	for _, n := range s.nodes {
		all = append(all, n.Namespace, s.podOn(n, "shop").Namespace)
	}
	return all
}

// podOn is the first pod of an app on a node.
func (s *site) podOn(n *node, app string) *pod {
	s.t.Helper()
	for _, p := range s.podsOf(app) {
		if p.node == n {
			return p
		}
	}
	s.t.Fatalf("no pod of %s on %s", app, n.Name())
	return nil
}

// testExpose is the shortest way: a Service for the pods of one selector.
func (s *site) testExpose() {
	s.t.Helper()
	s.kubectl("", "expose", "pod", s.podsOf("web")[0].Name(), "--name=exposed", "--port=80", "--target-port=8080", "--selector=app=web")
	exposed := s.service("exposed")
	for _, from := range s.askers() {
		s.Answers(soon, from, "tcp", exposed.at(0), names(s.podsOf("web"))...)
	}
	s.kubectl("", "delete", "service", "exposed")
	for _, from := range s.askers() {
		s.Answers(soon, from, "tcp", exposed.at(0))
	}
}

// testTypes asks in both families, over both protocols, at all addresses.
func (s *site) testTypes(t *testing.T) {
	t.Helper()
	s.apply("local", "web", "type: LoadBalancer", "externalTrafficPolicy: Local")
	local := s.balance("local", "203.0.113.80", "2001:db8:113::80")
	all := names(s.podsOf("web"))
	for f := range families {
		for _, network := range []string{"tcp", "udp"} {
			for _, from := range s.askers() {
				s.Answers(soon, from, network, local.at(f), all...)
			}
			for _, n := range s.nodes {
				here := s.podOn(n, "web").Name()
				s.Answers(soon, s.client, network, local.atNode(n, network, f), here)
				s.via(n, local.balancer[f])
				s.Answers(soon, s.client, network, local.atBalancer(f), here)
				if a := s.Ask(s.client, network, local.atBalancer(f)); a.Source.Addr() != clientAddrs[f] {
					t.Errorf("%s sees %v, want the client itself", a.Server, a.Source)
				}
			}
		}
	}
	cluster := s.apply("cluster", "web", "type: NodePort")
	for f := range families {
		for _, n := range s.nodes {
			s.Answers(soon, s.client, "tcp", cluster.atNode(n, "tcp", f), all...)
			s.Answers(soon, s.client, "udp", cluster.atNode(n, "udp", f), all...)
		}
	}
}

// testScale has the pods of a Service come and go.
func (s *site) testScale() {
	s.t.Helper()
	scaled := s.apply("scaled", "scaled", "type: NodePort")
	everywhere := func(servers ...*pod) {
		s.t.Helper()
		for _, n := range s.nodes {
			s.Answers(soon, n.Namespace, "tcp", scaled.at(0), names(servers)...)
			s.Answers(soon, s.podOn(n, "shop").Namespace, "udp", scaled.at(1), names(servers)...)
			s.Answers(soon, s.client, "tcp", scaled.atNode(n, "tcp", 1), names(servers)...)
		}
	}
	everywhere()
	first := s.createPod(s.nodes[0], "scaled")
	everywhere(first)
	second, third := s.createPod(s.nodes[1], "scaled"), s.createPod(s.nodes[1], "scaled")
	everywhere(first, second, third)
	s.setReady(second, false)
	everywhere(first, third)
	s.setReady(second, true)
	s.endPod(third)
	everywhere(first, second)
	// While all that serve are terminating, they go on serving.
	s.endPod(first)
	s.endPod(second)
	everywhere(first, second, third)
	s.reapPod(third)
	everywhere(first, second)
	s.reapPod(first)
	s.reapPod(second)
	everywhere()
}

// testAffinity has a client stay with its pod.
func (s *site) testAffinity() {
	s.t.Helper()
	sticky := s.apply("sticky", "web", "sessionAffinity: ClientIP")
	for f := range families {
		for _, from := range s.askers() {
			to := sticky.at(f)
			s.Eventually(soon, func() error {
				_, err := from.Ask(context.Background(), "tcp", to)
				return err
			})
			first := s.Ask(from, "tcp", to).Server
			s.Answers(soon, from, "tcp", to, first)
			s.Answers(soon, from, "udp", sticky.at(f), s.Ask(from, "udp", to).Server)
		}
	}
}
