// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func serviceCIDR(name string, cidrs ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{
		TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: cidrs},
	}
}

// TestServiceCIDR: packets to an address that Services could have, but none has,
// vanish at once when it is known to be one, and until no object lists it (A1.4,
// F4). What Services have is served and refused as ever.
func TestServiceCIDR(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	// Without kube-nft a pod answers at an address of the range, so that silence is
	// the rule's doing.
	free, taken := both("10.97.0.%d", "fd00:10:97::%d", 7), both("10.97.0.%d", "fd00:10:97::%d", 9)
	c.Must(c.a.Addr("lo", narrow(free)...))
	for f := range families {
		c.Must(c.node.Route(netip.PrefixFrom(free[f], free[f].BitLen()), c.a.addrs[f]))
		for _, network := range networks {
			c.Serve(c.a.Namespace, network, netip.AddrPortFrom(free[f], 80), "stray")
		}
	}
	s := service("web", 1, everyProtocol(80)...)
	s.Spec.ClusterIP, s.Spec.ClusterIPs = taken[ip4].String(), texts(taken[:]...)
	c.write(t, "web.yaml", withSlices(s, c.b)...)
	ranges := []string{"10.97.0.0/24", "fd00:10:97::/112"}
	c.run(t, "--cluster-cidr", clusterCIDR)
	check := func(name string, dropped bool) {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, network string, f family) {
				for _, from := range []*host{c.client, c.b, c.s, c.node} {
					if dst := netip.AddrPortFrom(free[f], 80); dropped {
						c.vanishes(t, from, network, dst)
					} else {
						c.served(t, from, network, dst, eitherSource, "stray")
					}
				}
				c.served(t, c.client, network, netip.AddrPortFrom(taken[f], 80), masqueraded, "b")
				c.refused(t, c.client, network, netip.AddrPortFrom(taken[f], 81))
			})
		})
	}
	check("A1.4 nothing is known", false)
	c.write(t, "one.yaml", serviceCIDR("one", ranges...))
	c.programmed(t)
	check("A1.4 known at once", true)
	c.write(t, "two.yaml", serviceCIDR("two", append(ranges, "10.97.0.0/16")...))
	c.remove(t, "one.yaml")
	c.programmed(t)
	check("F4 another object has it too", true)
	c.proxy.stop(t)
	check("A1.4 while no process runs", true)
	c.run(t, "--cluster-cidr", clusterCIDR)
	check("A1.4 after a restart", true)
	c.remove(t, "two.yaml")
	c.programmed(t)
	check("A1.4 gone at once", false)
}
