// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// inZone returns the Node of kube-nft in a zone; "" is none.
func inZone(zone string) *corev1.Node {
	n := nodeObject(outside)
	if zone != "" {
		n.Labels = map[string]string{corev1.LabelTopologyZone: zone}
	}
	return n
}

// zones and nodes are hints.
func zones(names ...string) *discoveryv1.EndpointHints {
	h := &discoveryv1.EndpointHints{}
	for _, n := range names {
		h.ForZones = append(h.ForZones, discoveryv1.ForZone{Name: n})
	}
	return h
}

func nodes(names ...string) *discoveryv1.EndpointHints {
	h := &discoveryv1.EndpointHints{}
	for _, n := range names {
		h.ForNodes = append(h.ForNodes, discoveryv1.ForNode{Name: n})
	}
	return h
}

// also returns hints for nodes and zones.
func also(nodes, zones *discoveryv1.EndpointHints) *discoveryv1.EndpointHints {
	return &discoveryv1.EndpointHints{ForNodes: nodes.ForNodes, ForZones: zones.ForZones}
}

// withHints gives the endpoints of what withSlices returned hints, in their order.
func withHints(objects []any, hints ...*discoveryv1.EndpointHints) []any {
	return eachEndpoint(objects, func(i int, e *discoveryv1.Endpoint) { e.Hints = hints[i] })
}

// TestHints: which endpoints are meant for this node and for its zone (A2.6, A2.7), from
// everywhere and through every frontend under the policy Cluster.
func TestHints(t *testing.T) {
	t.Parallel()
	var (
		ready       = discoveryv1.EndpointConditions{Ready: new(true)}
		notReady    = discoveryv1.EndpointConditions{Ready: new(false)}
		terminating = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
	)
	type hints = [3]*discoveryv1.EndpointHints
	type conditions = [3]discoveryv1.EndpointConditions
	allReady := conditions{ready, ready, ready}
	here, there := zones("here"), zones("there")
	cases := []struct {
		name       string
		hints      hints // of a, b and r
		conditions conditions
		servers    []string
	}{
		{"A2.6 no hints", hints{}, allReady, []string{"a", "b", "r"}},
		{"A2.6 one zone each", hints{here, there, there}, allReady, []string{"a"}},
		{"A2.6 the zone has others' endpoints", hints{there, there, here}, allReady, []string{"r"}},
		{"A2.6 several zones", hints{zones("there", "here"), there, zones("here", "elsewhere")}, allReady, []string{"a", "r"}},
		{"A2.6 no part of a name", hints{zones("her"), zones("heres"), here}, allReady, []string{"r"}},
		{"A2.6 one has no zone hint", hints{here, there, nil}, allReady, []string{"a", "b", "r"}},
		{"A2.6 one has empty hints", hints{here, there, zones()}, allReady, []string{"a", "b", "r"}},
		{"A2.6 none is for the zone", hints{there, there, zones("elsewhere")}, allReady, []string{"a", "b", "r"}},
		{"A2.6 one that is not ready has no hint", hints{here, nil, there}, conditions{ready, notReady, ready}, []string{"a"}},
		{"A2.6 the only one of the zone is not ready", hints{here, there, there}, conditions{notReady, ready, ready}, []string{"b", "r"}},
		{"A2.6 the only one of the zone terminates", hints{here, there, there}, conditions{terminating, ready, ready}, []string{"b", "r"}},
		{"A2.2 all terminate, hints or not", hints{here, there, there}, conditions{terminating, terminating, terminating}, []string{"a", "b", "r"}},
		{"A2.6 nodes", hints{nodes("node-0"), nodes("node-1"), nodes("node-1")}, allReady, []string{"a"}},
		{"A2.6 the node has another's endpoint", hints{nodes("node-1"), nodes("node-1"), nodes("node-1", "node-0")}, allReady, []string{"r"}},
		{"A2.6 one has no node hint", hints{nodes("node-0"), nodes("node-1"), nil}, allReady, []string{"a", "b", "r"}},
		{"A2.6 nodes before zones", hints{also(nodes("node-0"), there), also(nodes("node-1"), here), also(nodes("node-1"), here)}, allReady, []string{"a"}},
		{"A2.6 zones if a node hint is missing", hints{also(nodes("node-0"), there), also(nodes("node-1"), here), here}, allReady, []string{"b", "r"}},
		{"A2.6 zones if no node hint is ours", hints{also(nodes("node-2"), there), also(nodes("node-1"), here), also(nodes("node-1"), there)}, allReady, []string{"b"}},
		{"A2.6 node hints of others alone", hints{nodes("node-1"), nodes("node-1"), nodes("node-2")}, allReady, []string{"a", "b", "r"}},
	}
	c := newCluster(t)
	c.write(t, "node.yaml", inZone("here"))
	for i, tt := range cases {
		s := everywhere(fmt.Sprint("case-", i), 1+i)
		objects := withHints(withSlices(s, c.a, c.b, c.r), tt.hints[:]...)
		c.write(t, s.Name+".yaml", eachEndpoint(objects, func(i int, e *discoveryv1.Endpoint) {
			e.Conditions = tt.conditions[i]
		})...)
	}
	c.run(t, "--cluster-cidr", clusterCIDR)
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				for _, from := range []*host{c.client, c.node, c.s} {
					sees := masqueraded
					if from == c.s {
						sees = own
					}
					c.served(t, from, network, netip.AddrPortFrom(clusterIP(1 + i)[f], 80), sees, tt.servers...)
					for _, dst := range external(1+i, f) {
						c.served(t, from, network, dst, masqueraded, tt.servers...)
					}
				}
			})
		})
	}
}

// TestHintsLocal: hints mean nothing for the policy Local (A2.3, A2.6), only for
// those whom it does not concern.
func TestHintsLocal(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "node.yaml", inZone("here"))
	one := externalLocal(internalLocal(everywhere("one", 1)))
	c.write(t, "one.yaml", withHints(withSlices(one, c.a, c.b, c.r), zones("there"), zones("here"), zones("here"))...)
	two := externalLocal(everywhere("two", 2))
	c.write(t, "two.yaml", withHints(withSlices(two, c.a, c.r), nodes("node-1"), nodes("node-0"))...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
		at := func(n int) netip.AddrPort { return netip.AddrPortFrom(clusterIP(n)[f], 80) }
		for _, from := range []*host{c.client, c.node, c.s} {
			c.served(t, from, network, at(1), eitherSource, "a", "b")
			c.served(t, from, network, at(2), eitherSource, "r")
		}
		for _, dst := range external(1, f) {
			c.served(t, c.client, network, dst, own, "a", "b")
			c.served(t, c.s, network, dst, own, "b", "r")
			c.served(t, c.node, network, dst, masqueraded, "b", "r")
		}
		for _, dst := range external(2, f) {
			c.served(t, c.client, network, dst, own, "a")
			c.served(t, c.s, network, dst, own, "r")
			c.served(t, c.node, network, dst, masqueraded, "r")
		}
	})
}

// TestZoneChanges: the Node's zone decides from when it changes on, with nothing
// else that changes, also if the Node comes last of all (A2.6, F13). Hints that
// change do as well.
func TestZoneChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	write := func(a, r *discoveryv1.EndpointHints) {
		c.write(t, "web.yaml", withHints(withSlices(everywhere("web", 1), c.a, c.r), a, r)...)
	}
	write(zones("one"), zones("two"))
	c.run(t, "--cluster-cidr", clusterCIDR)
	for _, tt := range []struct {
		name    string
		change  func()
		servers []string
	}{
		{"A2.6 no Node", func() {}, []string{"a", "r"}},
		{"A2.6 a Node", func() { c.write(t, "node.yaml", inZone("one")) }, []string{"a"}},
		{"A2.6 another zone", func() { c.write(t, "node.yaml", inZone("two")) }, []string{"r"}},
		{"A2.6 a zone without endpoints", func() { c.write(t, "node.yaml", inZone("three")) }, []string{"a", "r"}},
		{"A2.6 back", func() { c.write(t, "node.yaml", inZone("one")) }, []string{"a"}},
		{"A2.6 no zone", func() { c.write(t, "node.yaml", inZone("")) }, []string{"a", "r"}},
		{"A2.6 another Node has one", func() {
			n := inZone("two")
			n.Name = "node-1"
			c.write(t, "node1.yaml", n)
		}, []string{"a", "r"}},
		{"A2.6 once more", func() { c.write(t, "node.yaml", inZone("two")) }, []string{"r"}},
		{"A2.6 hints change", func() { write(zones("two"), zones("one")) }, []string{"a"}},
		{"A2.6 hints are for nodes", func() { write(nodes("node-1"), nodes("node-0")) }, []string{"r"}},
		{"A2.6 hints go", func() { write(nil, nil) }, []string{"a", "r"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin, late := time.Now(), time.Duration(0)
			tt.change()
			for _, f := range families {
				all := external(1, f)
				all["cluster IP"] = netip.AddrPortFrom(clusterIP(1)[f], 80)
				for name, dst := range all {
					for _, network := range networks[:2] {
						err := netlab.Poll(patience, func() error {
							err := c.tryServed(c.client, network, dst, masqueraded, tt.servers...)
							if err != nil {
								late = time.Since(begin)
							}
							return err
						})
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
					}
				}
			}
			if late > time.Second {
				t.Errorf("not effective after %v", late)
			}
		})
	}
	// Nobody but the tables knows: a restart changes nothing, also without a Node.
	write(zones("one"), zones("two"))
	c.programmed(t)
	c.restartsQuietly(t, "--cluster-cidr", clusterCIDR)
	eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
		c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(1)[f], 80), masqueraded, "r")
	})
}
