// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"
)

// TestClusterIP: a ClusterIP leads to its endpoints from everywhere (A1.1, A1.14,
// A1.15), and the configuration says whose address they see (A3.8, A3.9, A3.10).
func TestClusterIP(t *testing.T) {
	t.Parallel()
	detected := map[string]seen{"client": masqueraded, "node": masqueraded, "b": own, "s": own}
	for _, tt := range []struct {
		name  string
		flags []string
		sees  map[string]seen // by client
	}{
		{"A3.8 pods keep their address", []string{"--cluster-cidr", clusterCIDR}, detected},
		{"A3.8 nobody is told from pods", nil,
			map[string]seen{"client": own, "node": own, "b": own, "s": own}},
		{"A3.8 masquerade all", []string{"--masquerade-all", "--cluster-cidr", clusterCIDR},
			map[string]seen{"client": masqueraded, "node": masqueraded, "b": masqueraded, "s": masqueraded}},
		{"A3.9 one family of two", []string{"--cluster-cidr", "fd00:10:128::/48"}, nil},
		{"A3.10 another mark bit", []string{"--iptables-masquerade-bit", "31", "--cluster-cidr", clusterCIDR}, detected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a, c.r)...)
			c.run(t, tt.flags...)
			eachWay(t, func(t *testing.T, network string, f family) {
				dst := netip.AddrPortFrom(clusterIP(1)[f], 80)
				for _, from := range []*host{c.client, c.node, c.b, c.s} {
					sees := tt.sees[from.Name()]
					if tt.sees == nil && f == ip6 {
						sees = detected[from.Name()]
					}
					c.served(t, from, network, dst, sees, "a", "r")
				}
			})
		})
	}
}

// TestSkippedServices: Services that a proxy leaves alone have no frontends (A1.2).
func TestSkippedServices(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	headless := service("headless", 1, everyProtocol(80)...)
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = "None", []string{"None"}
	headless.Spec.ExternalIPs = texts(externalIP(1)[ip4], externalIP(1)[ip6])
	c.write(t, "headless.yaml", withSlices(headless, c.a)...)
	name := service("name", 2, everyProtocol(80)...)
	name.Spec.Type, name.Spec.ExternalName = "ExternalName", "example.org"
	c.write(t, "name.yaml", withSlices(name, c.a)...)
	other := service("other", 3, everyProtocol(80)...)
	c.write(t, "other.yaml", withSlices(other, c.a)...)
	old := service("old", 4, everyProtocol(80)...)
	old.Spec.ClusterIPs, old.Spec.IPFamilies = nil, nil
	c.write(t, "old.yaml", withSlices(old, c.a)...)
	c.run(t)
	eachWay(t, func(t *testing.T, network string, f family) {
		c.silent(t, c.client, network, netip.AddrPortFrom(externalIP(1)[f], 80))
		c.silent(t, c.client, network, netip.AddrPortFrom(clusterIP(2)[f], 80))
		c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(3)[f], 80), own, "a")
		if f == ip4 {
			c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(4)[f], 80), own, "a")
		} else {
			c.silent(t, c.client, network, netip.AddrPortFrom(clusterIP(4)[f], 80))
		}
	})
	// A Service that another proxy takes over vanishes like one that is deleted.
	other.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "another"}
	c.write(t, "other.yaml", withSlices(other, c.a)...)
	c.programmed(t)
	eachWay(t, func(t *testing.T, network string, f family) {
		c.silent(t, c.client, network, netip.AddrPortFrom(clusterIP(3)[f], 80))
	})
}

// TestForeignMarks: the mark of packets is shared, all bits but our own belong to
// others and are left alone (A3.10).
func TestForeignMarks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, bit, ours, theirs string }{
		{"A3.10 default bit", "14", "0x00004000", "0xa5a51a5a"},
		{"A3.10 bit 3, and kube-proxy's is somebody else's", "3", "0x00000008", "0x5a5ae5a5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.Must(c.node.NFT(`table inet somebody {
	chain prerouting {
		type filter hook prerouting priority mangle;
		meta mark set meta mark | ` + tt.theirs + `
	}
	chain output {
		type route hook output priority mangle;
		meta mark set meta mark | ` + tt.theirs + `
	}
	chain postrouting {
		type filter hook postrouting priority 200;
		meta mark & ` + tt.theirs + ` != ` + tt.theirs + ` drop
		meta mark & ` + tt.ours + ` != 0 drop
	}
}`))
			c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a, c.r)...)
			c.run(t, "--iptables-masquerade-bit", tt.bit, "--cluster-cidr", clusterCIDR)
			eachWay(t, func(t *testing.T, network string, f family) {
				dst := netip.AddrPortFrom(clusterIP(1)[f], 80)
				c.served(t, c.client, network, dst, masqueraded, "a", "r")
				c.served(t, c.node, network, dst, masqueraded, "a", "r")
				c.served(t, c.b, network, dst, own, "a", "r")
			})
		})
	}
}
