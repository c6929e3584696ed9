// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"
)

// TestRefused: what has no endpoints is refused at once, everywhere; it is served
// when they come and refused when they go (A3.4, A3.5, A1.3).
func TestRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := withNodePort(service("web", 1, everyProtocol(80)...), 30080)
	for f := range families {
		web.Spec.ExternalIPs = append(web.Spec.ExternalIPs, externalIP(1)[f].String())
		withIngress(web, balancerIP(1)[f])
	}
	frontends := func(f family) map[string]netip.AddrPort {
		return map[string]netip.AddrPort{
			"A3.4 ClusterIP":        netip.AddrPortFrom(clusterIP(1)[f], 80),
			"A3.5 external IP":      netip.AddrPortFrom(externalIP(1)[f], 80),
			"A3.5 load balancer IP": netip.AddrPortFrom(balancerIP(1)[f], 80),
			"A3.5 node port":        netip.AddrPortFrom(outside[f], 30080),
		}
	}
	c.write(t, "web.yaml", web)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for _, tt := range []struct {
		name      string
		endpoints []*host
		served    bool
	}{
		{"no slices", nil, false},
		{"endpoints come", []*host{c.a, c.r}, true},
		{"endpoints go", []*host{}, false},
		{"one comes", []*host{c.r}, true},
		{"slices go", nil, false},
	} {
		objects := []any{web}
		if tt.endpoints != nil {
			objects = withSlices(web, tt.endpoints...)
		}
		c.write(t, "web.yaml", objects...)
		c.programmed(t)
		t.Run(tt.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, network string, f family) {
				for name, dst := range frontends(f) {
					t.Run(name, func(t *testing.T) {
						for _, from := range []*host{c.client, c.b, c.s, c.node} {
							if tt.served {
								c.served(t, from, network, dst, eitherSource, names(tt.endpoints)...)
							} else {
								c.refused(t, from, network, dst)
							}
						}
					})
				}
			})
		})
	}
}

func names(hosts []*host) (all []string) {
	for _, h := range hosts {
		all = append(all, h.Name())
	}
	return all
}

// TestUnusedPort: a port that a ClusterIP does not have is refused in forward and
// output (A1.3); of the addresses that a Service shares with others it is not.
func TestUnusedPort(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.Must(c.client.Addr("lo", narrow(externalIP(1))...))
	web := service("web", 1, everyProtocol(80)...)
	web.Spec.ExternalIPs = texts(externalIP(1)[ip4], externalIP(1)[ip6])
	c.write(t, "web.yaml", withSlices(web, c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	eachWay(t, func(t *testing.T, network string, f family) {
		for _, from := range []*host{c.client, c.b, c.s, c.node} {
			c.served(t, from, network, netip.AddrPortFrom(clusterIP(1)[f], 80), eitherSource, "a")
			c.refused(t, from, network, netip.AddrPortFrom(clusterIP(1)[f], 81))
			c.refused(t, from, network, netip.AddrPortFrom(clusterIP(1)[f], targetPort))
		}
		if network != "sctp" {
			// The client is who has this address.
			elsewhere := netip.AddrPortFrom(externalIP(1)[f], 8443)
			c.Serve(c.client.Namespace, network, elsewhere, "client")
			c.served(t, c.b, network, elsewhere, eitherSource, "client")
			c.served(t, c.node, network, elsewhere, eitherSource, "client")
		}
	})
	c.remove(t, "web.yaml")
	c.programmed(t)
	eachWay(t, func(t *testing.T, network string, f family) {
		c.silent(t, c.client, network, netip.AddrPortFrom(clusterIP(1)[f], 80))
		c.silent(t, c.client, network, netip.AddrPortFrom(clusterIP(1)[f], 81))
	})
}
