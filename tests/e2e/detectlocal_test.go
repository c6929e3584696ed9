// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeWithPods returns this node with CIDRs of pods.
func nodeWithPods(cidrs ...string) *corev1.Node {
	n := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: "node-0"},
		Spec:       corev1.NodeSpec{PodCIDRs: cidrs},
	}
	for _, a := range outside {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return n
}

// TestDetectLocal: who is a local pod reaches cluster IPs under its own address,
// and under the external policy Local all endpoints; everybody else is masqueraded
// on the way to cluster IPs (A3.8, A3.9).
func TestDetectLocal(t *testing.T) {
	t.Parallel()
	masq := func(own ...string) map[string]seen {
		sees := map[string]seen{"client": masqueraded, "node": masqueraded, "a": masqueraded, "b": masqueraded, "s": masqueraded}
		for _, name := range own {
			delete(sees, name)
		}
		return sees
	}
	here := []string{"10.128.0.0/24", "fd00:10:128::/64"}
	for _, tt := range []struct {
		name  string
		flags []string
		pods  []string // CIDRs of the Node
		sees  map[string]seen
	}{
		{"A3.9 ClusterCIDR", []string{"--cluster-cidr", clusterCIDR}, here, masq("a", "b", "s")},
		{"A3.9 NodeCIDR", []string{"--detect-local-mode", "NodeCIDR", "--cluster-cidr", clusterCIDR}, here, masq("a", "b")},
		{"A3.9 NodeCIDR unknown", []string{"--detect-local-mode", "NodeCIDR"}, nil, map[string]seen{}},
		{"A3.9 BridgeInterface", []string{"--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "pod-b"}, here, masq("b")},
		{"A3.9 InterfaceNamePrefix", []string{"--detect-local-mode", "InterfaceNamePrefix", "--pod-interface-name-prefix", "pod-"}, here, masq("a", "b")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.write(t, "node.yaml", nodeWithPods(tt.pods...))
			c.write(t, "web.yaml", withSlices(externalLocal(everywhere("web", 1)), c.b, c.r)...)
			c.run(t, tt.flags...)
			c.checkDetected(t, tt.sees)
		})
	}
	t.Run("A3.9 NodeCIDR comes and changes", func(t *testing.T) {
		t.Parallel()
		c := newCluster(t)
		c.write(t, "node.yaml", nodeWithPods())
		c.write(t, "web.yaml", withSlices(externalLocal(everywhere("web", 1)), c.b, c.r)...)
		c.run(t, "--detect-local-mode", "NodeCIDR")
		c.proxy.logs(t, "podCIDRs", "nobody is masqueraded")
		c.checkDetected(t, map[string]seen{})
		c.write(t, "node.yaml", nodeWithPods(here...))
		c.programmed(t)
		c.checkDetected(t, masq("a", "b"))
		c.write(t, "node.yaml", nodeWithPods("10.128.1.0/24", "fd00:10:128:1::/64"))
		c.programmed(t)
		c.checkDetected(t, masq("s"))
	})
}

// checkDetected checks what servers see of everybody through the cluster IP, and
// whom the policy Local takes for a local pod.
func (c *cluster) checkDetected(t *testing.T, sees map[string]seen) {
	t.Helper()
	eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
		for _, from := range []*host{c.client, c.node, c.a, c.s} {
			c.served(t, from, network, netip.AddrPortFrom(clusterIP(1)[f], 80), sees[from.Name()], "b", "r")
			shortcut := from == c.node || len(sees) > 0 && sees[from.Name()] == own
			for _, dst := range external(1, f) {
				if shortcut {
					c.served(t, from, network, dst, eitherSource, "b", "r")
				} else {
					c.served(t, from, network, dst, own, "b")
				}
			}
		}
	})
}
