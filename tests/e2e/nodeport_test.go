// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeObject returns the Node of kube-nft, with these addresses.
func nodeObject(addrs [2]netip.Addr) *corev1.Node {
	n := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: "node-0"},
	}
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses,
			corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return n
}

// TestNodePort: node ports are served on the addresses that the configuration
// says, to everybody and masqueraded (A1.5, A1.6, A3.3), and other ports of the
// node are left alone (A1.8).
func TestNodePort(t *testing.T) {
	t.Parallel()
	all := func(f family) []netip.Addr { return []netip.Addr{outside[f], inside[f], secondary[f], gateway[f]} }
	one := func(addrs [2]netip.Addr) func(family) []netip.Addr {
		return func(f family) []netip.Addr { return addrs[f : f+1] }
	}
	for _, tt := range []struct {
		name   string
		flags  []string
		node   *corev1.Node
		served func(family) []netip.Addr
	}{
		{"A1.5 primary by default", nil, nil, one(outside)},
		{"A1.5 primary as the Node says", []string{"--nodeport-addresses", "primary"}, nodeObject(inside), one(inside)},
		{"A1.5 bind address", []string{"--bind-address", secondary[ip4].String()}, nil,
			func(f family) []netip.Addr { return [][]netip.Addr{secondary[:1], outside[1:]}[f] }},
		{"A1.5 CIDRs", []string{"--nodeport-addresses", "172.16.0.0/12,192.168.2.0/24,fd00:16::/64"}, nil,
			func(f family) []netip.Addr { return [][]netip.Addr{{secondary[ip4], inside[ip4]}, secondary[1:]}[f] }},
		{"A1.5 a family without CIDR", []string{"--nodeport-addresses", "172.16.0.0/12"}, nil,
			func(f family) []netip.Addr { return [][]netip.Addr{secondary[:1], all(ip6)}[f] }},
		{"A1.6 all", []string{"--nodeport-addresses", "all"}, nil, all},
		{"A1.6 CIDRs of length 0", []string{"--nodeport-addresses", "0.0.0.0/0,::/0"}, nil, all},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			objects := withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a, c.r)
			if tt.node != nil {
				objects = append(objects, tt.node)
			}
			c.write(t, "web.yaml", objects...)
			c.write(t, "idle.yaml", withSlices(withNodePort(service("idle", 2, everyProtocol(80)...), 30081))...)
			c.run(t, append(tt.flags, "--cluster-cidr", clusterCIDR)...)
			eachWay(t, func(t *testing.T, network string, f family) {
				c.checkNodePort(t, network, f, tt.served(f))
			})
		})
	}
}

func (c *cluster) checkNodePort(t *testing.T, network string, f family, served []netip.Addr) {
	t.Helper()
	for _, addr := range []netip.Addr{outside[f], inside[f], secondary[f], gateway[f]} {
		isServed := contains(texts(served...), addr.String())
		for _, from := range []*host{c.client, c.node, c.b, c.s} {
			if addr == gateway[f] && (from == c.s || from == c.client) {
				continue // these have another way there, or none
			}
			dst := netip.AddrPortFrom(addr, 30080)
			if isServed {
				c.served(t, from, network, dst, masqueraded, "a", "r")
			} else if network == "sctp" && from == c.node {
				continue // it hears its own packets, so the kernel keeps silent
			} else {
				c.refused(t, from, network, dst)
			}
			// Without endpoints a node port is refused on arrival, like a port
			// that nobody listens on (A3.5).
			c.refused(t, from, network, netip.AddrPortFrom(addr, 30081))
		}
		if network == "sctp" {
			continue // for the kernel here there are only tcp and udp servers
		}
		plain := netip.AddrPortFrom(addr, 9090)
		s := c.Serve(c.node.Namespace, network, plain, "node")
		c.served(t, c.client, network, plain, eitherSource, "node")
		c.served(t, c.node, network, plain, eitherSource, "node")
		c.Must(s.Close())
	}
	// Loopback is the host's own, whatever the configuration.
	if network != "sctp" {
		c.refused(t, c.node, network, netip.AddrPortFrom(netip.MustParseAddr(loopbacks[f]), 30080))
	}
}

// TestNodePortServices: two Services, one node port number for two protocols,
// and a server of the node behind a node port that is not served there.
func TestNodePortServices(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "a.yaml", withSlices(withNodePort(service("one", 1, servicePort("", "TCP", 80)), 30080), c.a)...)
	c.write(t, "b.yaml", withSlices(withNodePort(service("two", 2, servicePort("", "UDP", 80)), 30080), c.b)...)
	c.run(t)
	for _, f := range families {
		t.Run(strings.Join([]string{"A1.6", f.String()}, " "), func(t *testing.T) {
			c.served(t, c.client, "tcp", netip.AddrPortFrom(outside[f], 30080), masqueraded, "a")
			c.served(t, c.client, "udp", netip.AddrPortFrom(outside[f], 30080), masqueraded, "b")
			c.refused(t, c.client, "sctp", netip.AddrPortFrom(outside[f], 30080))
			own := netip.AddrPortFrom(secondary[f], 30080)
			c.Serve(c.node.Namespace, "tcp", own, "node")
			c.served(t, c.client, "tcp", own, eitherSource, "node")
		})
	}
}
