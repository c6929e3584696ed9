// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"net/http"
	"net/netip"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestNodeComesLate starts kube-nft on nodes of which the API does not know yet, or
// knows only a part. What the Node object says when it comes is what holds, the zone
// in its very first event too.
func TestNodeComesLate(t *testing.T) {
	s := newReadySite(t, 5)
	zone := func(name string) map[string]string { return map[string]string{zoneLabel: name} }
	s.createNode(s.nodes[3], zone("zone-a"))
	s.createNode(s.nodes[4], zone("zone-b"))
	a, b := s.createPod(s.nodes[3], "web"), s.createPod(s.nodes[4], "web")
	both := []*pod{a, b}
	web := s.apply("web", "web", "type: NodePort", "trafficDistribution: PreferSameZone")
	agents := s.runAgents()
	s.seen(s.nodes[3], web, a)
	s.seen(s.nodes[4], web, b)
	for _, n := range s.nodes[:3] {
		s.seen(n, web, both...)
		s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(both)...) // which the host calls its own
	}

	guessed := s.nodes[0].addrs
	s.move(s.nodes[0], "192.0.2.60", "2001:db8::60")
	s.createNode(s.nodes[0], zone("zone-a"))
	s.createNode(s.nodes[1], zone("zone-b"))
	s.createNode(s.nodes[2], nil)
	for i, want := range [][]*pod{{a}, {b}, both} {
		s.seen(s.nodes[i], web, want...)
		for f := range families {
			s.Answers(soon, s.client, "tcp", web.atNode(s.nodes[i], "tcp", f), names(want)...)
		}
	}
	for f := range families {
		s.Answers(soon, s.client, "tcp", netip.AddrPortFrom(guessed[f], web.nodePorts["tcp"]))
	}
	s.patch(nodesPath+"/node-2", map[string]any{"metadata": map[string]any{"labels": zone("zone-a")}})
	s.seen(s.nodes[2], web, a)

	// With a Node that is there from the beginning, nothing is ever programmed for
	// another zone (F13).
	for range 5 {
		agents[0].End(syscall.SIGTERM)
		s.cleanAgent(s.nodes[0])
		agents[0] = s.startAgent(s.nodes[0])
		agents[0].Await(soon, programmed)
		for f := range families {
			s.Must(s.nodes[0].AnsweredBy("tcp", web.at(f), a.Name()))
		}
	}
}

// move gives a node addresses besides those that it has, for its Node object to name.
func (s *site) move(n *node, to ...string) {
	s.t.Helper()
	n.addrs = addrs(to...)
	s.Must(n.Addr("eth0", netip.PrefixFrom(n.addrs[0], 24), netip.PrefixFrom(n.addrs[1], 64)))
}

// TestPodCIDRsComeLate has kube-nft know pods by the Node's spec.podCIDRs, which come
// while it runs: from then on a client outside, and no pod of the node, is masqueraded
// on the way to a ClusterIP.
func TestPodCIDRsComeLate(t *testing.T) {
	s := newSite(t, 1)
	n := s.nodes[0]
	s.createPod(n, "web")
	shop := s.createPod(n, "shop")
	web := s.apply("web", "web")
	agent := s.startAgent(n, "--detect-local-mode", "NodeCIDR")
	agent.Await(soon, programmed)
	for f := range families {
		s.via(n, web.addrs[f])
		s.sourceIs(s.client, web.at(f), clientAddrs[f])
		s.sourceIs(shop.Namespace, web.at(f), shop.addrs[f])
	}
	cidrs := n.podCIDRs()
	s.patch(nodesPath+"/"+n.Name(), map[string]any{"spec": map[string]any{
		"podCIDR": cidrs[0].String(), "podCIDRs": []string{cidrs[0].String(), cidrs[1].String()},
	}})
	for f := range families {
		s.sourceIs(s.client, web.at(f), n.addrs[f])
		s.sourceIs(shop.Namespace, web.at(f), shop.addrs[f])
	}
	s.Must(agent.Gone())
}

// sourceIs waits until a server sees a client as this address.
func (s *site) sourceIs(from *netlab.Namespace, to netip.AddrPort, want netip.Addr) {
	s.t.Helper()
	s.Eventually(soon, func() error {
		a, err := from.Ask(s.t.Context(), "tcp", to)
		if err == nil && a.Source.Addr() != want {
			err = &sourceError{from: from.Name(), got: a.Source.Addr(), want: want}
		}
		return err
	})
}

type sourceError struct {
	from      string
	got, want netip.Addr
}

func (e *sourceError) Error() string {
	return "the server sees " + e.from + " as " + e.got.String() + ", want " + e.want.String()
}

// TestNodeGoes drains a node, deletes its Node object and makes it anew. Load
// balancers are told to stay away, while the probe that would restart kube-nft is
// content and traffic goes on.
func TestNodeGoes(t *testing.T) {
	s := newSite(t, 2)
	n := s.nodes[0]
	web := s.apply("web", "web", "type: NodePort")
	for _, n := range s.nodes {
		s.createPod(n, "web")
		s.createPod(n, "shop")
	}
	agent := s.runAgents()[0]
	all := names(s.podsOf("web"))
	s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), all...)
	s.Answers(soon, s.client, "tcp", web.atNode(s.nodes[1], "tcp", 0), all...)
	tr := s.startTraffic(s.flowsTo(web))
	good := func() {
		t.Helper()
		agent.AwaitStatus(soon, healthz, http.StatusOK)
		agent.AwaitStatus(soon, livez, http.StatusOK)
	}
	drains := func() {
		t.Helper()
		agent.AwaitStatus(soon, healthz, http.StatusServiceUnavailable)
		agent.AwaitStatus(soon, livez, http.StatusOK)
	}
	good()
	path := nodesPath + "/" + n.Name()
	s.patch(path, map[string]any{"spec": map[string]any{"taints": []corev1.Taint{
		{Key: "ToBeDeletedByClusterAutoscaler", Value: "1", Effect: corev1.TaintEffectNoSchedule},
	}}})
	drains()
	s.patch(path, map[string]any{"spec": map[string]any{"taints": nil}})
	good()
	// What keeps the object for a while has it be seen with a deletionTimestamp.
	s.patch(path, map[string]any{"metadata": map[string]any{"finalizers": []string{"example.com/wait"}}})
	s.kubectl("", "delete", "node", n.Name(), "--wait=false")
	drains()
	s.patch(path, map[string]any{"metadata": map[string]any{"finalizers": nil}})
	s.Eventually(soon, func() error {
		return wantStatus(s.api.Do(t.Context(), http.MethodGet, path, nil, nil), http.StatusNotFound)
	})
	drains()
	tr.goOn(s)
	s.createNode(n, nil)
	good()
	tr.goOn(s)
	s.lossless(tr, "a node drained, deleted and made anew")

	// A Node of the same name that is another machine.
	moved := n.addrs
	s.kubectl("", "delete", "node", n.Name())
	s.move(n, "192.0.2.50", "2001:db8::50")
	s.createNode(n, nil)
	for f := range families {
		s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", f), all...)
		s.Answers(soon, s.client, "tcp", netip.AddrPortFrom(moved[f], web.nodePorts["tcp"]))
	}
	agent.AwaitStatus(soon, healthz, http.StatusOK)
}
