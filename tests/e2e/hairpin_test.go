// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"
)

// TestHairpin: a pod that reaches itself through its Service sees another address
// than its own (A3.11), and others keep theirs.
func TestHairpin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
	}{
		{"A3.11 local pods detected", []string{"--cluster-cidr", clusterCIDR}},
		{"A3.11 nobody is masqueraded otherwise", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			one := withNodePort(service("one", 1, everyProtocol(80)...), 30080)
			one.Spec.ExternalIPs = texts(externalIP(1)[ip4], externalIP(1)[ip6])
			c.write(t, "one.yaml", withSlices(one, c.a)...)
			two := service("two", 2, everyProtocol(80)...)
			c.write(t, "two.yaml", withSlices(two, c.a, c.b)...)
			c.run(t, tt.flags...)
			eachWay(t, func(t *testing.T, network string, f family) {
				for _, dst := range []netip.AddrPort{
					netip.AddrPortFrom(clusterIP(1)[f], 80),
					netip.AddrPortFrom(externalIP(1)[f], 80),
					netip.AddrPortFrom(outside[f], 30080),
				} {
					c.served(t, c.a, network, dst, masqueraded, "a")
				}
				c.served(t, c.b, network, netip.AddrPortFrom(clusterIP(1)[f], 80), own, "a")
				// Of two endpoints only the way to itself is masqueraded.
				for range 20 {
					a, err := c.a.ask(network, netip.AddrPortFrom(clusterIP(2)[f], 80), patience)
					c.Must(err)
					sees := own
					if a.Server == "a" {
						sees = masqueraded
					}
					c.Must(c.checkSource(c.a, a, sees))
				}
				// What does not come through a Service is nobody's business.
				c.served(t, c.b, network, c.a.at(f, targetPort), own, "a")
			})
			// The endpoint moves, and hairpins move with it.
			c.write(t, "one.yaml", withSlices(one, c.b)...)
			c.remove(t, "two.yaml")
			c.programmed(t)
			eachWay(t, func(t *testing.T, network string, f family) {
				dst := netip.AddrPortFrom(clusterIP(1)[f], 80)
				c.served(t, c.b, network, dst, masqueraded, "b")
				c.served(t, c.a, network, dst, own, "b")
			})
		})
	}
}
