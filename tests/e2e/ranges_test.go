// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/controller/source"
)

// restricted gives a Service source ranges.
func restricted(s *corev1.Service, ranges ...string) *corev1.Service {
	s.Spec.LoadBalancerSourceRanges = ranges
	return s
}

// TestSourceRanges: who is not in the ranges is not let in to load balancer IPs, in
// silence; all other frontends are open (A1.12).
func TestSourceRanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	// Clients 0, 1, … have the addresses 192.168.1.100, .101, … and fd00:1::100, ….
	clients := c.clients(t, 7)
	first := func(n int) func(*host) bool {
		return func(h *host) bool { return slices.Contains(clients[:n], h) }
	}
	outside := func(h *host) bool { return slices.Contains(clients, h) || h == c.node }
	every := func(*host) bool { return true }
	for i, tt := range []struct {
		name   string
		ranges []string
		in     [2]func(*host) bool // who is let in, by family
		warns  string
	}{
		{"A1.12 one address", []string{"192.168.1.100/32", "fd00:1::100/128"}, [2]func(*host) bool{first(1), first(1)}, ""},
		{"A1.12 blanks", []string{"\t192.168.1.100/32 ", " ", " fd00:1::100/128\n"}, [2]func(*host) bool{first(1), first(1)}, ""},
		{"A1.12 overlapping, adjacent and twice", []string{
			"192.168.1.100/30", "192.168.1.100/31", "192.168.1.100/30", "192.168.1.104/32", "192.168.1.105/32",
			"fd00:1::100/127", "fd00:1::100/126", "fd00:1::104/128", "fd00:1::105/128", "fd00:1::105/128",
		}, [2]func(*host) bool{first(6), first(6)}, ""},
		{"A1.12 bits behind the length", []string{"192.168.1.102/30", "fd00:1::103/126"}, [2]func(*host) bool{first(4), first(4)}, ""},
		{"A1.12 a network", []string{"192.168.1.0/24", "fd00:1::/64"}, [2]func(*host) bool{outside, outside}, ""},
		{"A1.12 everybody", []string{"192.168.1.100/32", "0.0.0.0/0", "fd00:1::100/128", "::/0"}, [2]func(*host) bool{every, every}, ""},
		{"F5 only IPv4", []string{"192.168.1.100/32"}, [2]func(*host) bool{first(1), every}, "no IPv6 range"},
		{"F5 only IPv6", []string{"fd00:1::100/128"}, [2]func(*host) bool{every, first(1)}, "no IPv4 range"},
		{"A1.12 pods", []string{clusterCIDR[:13], podCIDR1[ip6]}, [2]func(*host) bool{
			func(h *host) bool { return h == c.b || h == c.s }, func(h *host) bool { return h == c.s },
		}, ""},
	} {
		n := 1 + i
		web := restricted(allProtocols(fmt.Sprint("web-", n), n), tt.ranges...)
		c.write(t, web.Name+".yaml", withSlices(web, c.a, c.r)...)
		idle := restricted(allProtocols(fmt.Sprint("idle-", n), 50+n), tt.ranges...)
		c.write(t, idle.Name+".yaml", withSlices(idle)...)
		defer func() {
			if tt.warns != "" {
				c.proxy.logs(t, "level=WARN", web.Name, tt.warns)
			}
			t.Run(tt.name, func(t *testing.T) {
				eachWay(t, func(t *testing.T, network string, f family) {
					balancer := external(n, f)["load balancer IP"]
					unserved := external(50+n, f)["load balancer IP"]
					for _, from := range append([]*host{c.node, c.b, c.s}, clients...) {
						if tt.in[f](from) {
							c.served(t, from, network, balancer, masqueraded, "a", "r")
							c.refused(t, from, network, unserved)
							continue
						}
						// Silence takes its time.
						if from == c.node || from == c.b || from == clients[6] || n == 3 {
							c.vanishes(t, from, network, balancer)
							c.vanishes(t, from, network, unserved)
						}
					}
					for _, from := range []*host{c.node, c.b, clients[6]} {
						for _, dst := range frontends(n, f) {
							if dst != balancer {
								c.served(t, from, network, dst, eitherSource, "a", "r")
							}
						}
					}
				})
			})
		}()
	}
	c.run(t, "--cluster-cidr", clusterCIDR)
}

// TestSourceRangesInvalid: what cannot be read lets nobody in, and if nothing can be
// read nobody is let in (A1.12). The API server passes such ranges, manifests do not.
func TestSourceRangesInvalid(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	some := restricted(everywhere("some", 1), "192.168.1.100/33", "192.168.1.100/32", "fd00:1::100/128")
	nothing := restricted(everywhere("nothing", 2), "192.168.1.100", "everybody")
	c.control(t, func(sink source.Sink) {
		for _, s := range []*corev1.Service{some, nothing} {
			sink.SetService(s)
			for _, f := range families {
				sink.SetSlice(slice(s, f, c.a, c.r))
			}
		}
	})
	clients := c.clients(t, 2)
	c.Eventually(10*time.Second, func() error {
		_, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(2)[ip6], 80), 100*time.Millisecond)
		return err
	})
	eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
		c.served(t, clients[0], network, external(1, f)["load balancer IP"], masqueraded, "a", "r")
		c.silent(t, clients[1], network, external(1, f)["load balancer IP"])
		for _, from := range []*host{clients[0], c.b, c.node} {
			c.vanishes(t, from, network, external(2, f)["load balancer IP"])
			c.served(t, from, network, external(2, f)["external IP"], masqueraded, "a", "r")
		}
	})
}

// TestSourceRangesPolicies: ranges with the traffic policies Local, and with affinity
// (A1.12, A3.2, A3.12).
func TestSourceRangesPolicies(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ranges := []string{"192.168.1.100/32", "fd00:1::100/128", podCIDR1[ip4], podCIDR1[ip6]}
	c.write(t, "here.yaml", withSlices(restricted(externalLocal(everywhere("here", 1)), ranges...), c.a, c.r)...)
	c.write(t, "away.yaml", withSlices(restricted(externalLocal(everywhere("away", 2)), ranges...), c.r)...)
	c.write(t, "sticky.yaml", withSlices(restricted(sticky(everywhere("sticky", 3), forHours), ranges...), c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	clients := c.clients(t, 2)
	eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
		at := func(n int) netip.AddrPort { return external(n, f)["load balancer IP"] }
		c.served(t, clients[0], network, at(1), own, "a")
		c.served(t, c.s, network, at(1), own, "a", "r")
		c.silent(t, clients[0], network, at(2))
		c.served(t, c.s, network, at(2), own, "r")
		c.stays(t, clients[0], network, masqueraded, "", at(3))
		c.stays(t, c.s, network, masqueraded, "", at(3))
		// A client that is known is not let in for that.
		c.stays(t, clients[1], network, masqueraded, "", external(3, f)["node port"])
		for n := range 3 {
			for _, from := range []*host{clients[1], c.b, c.node} {
				c.vanishes(t, from, network, at(1+n))
			}
		}
	})
}

// TestSourceRangesNode: where the node has a load balancer IP itself, its processes
// ask under that address. They are let in if the node's own address is in the ranges
// (A1.12).
func TestSourceRangesNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "node.yaml", nodeObject(outside))
	c.write(t, "in.yaml", withSlices(restricted(everywhere("in", 1), "192.168.1.1/32", "fd00:1::1/128"), c.a, c.r)...)
	c.write(t, "out.yaml", withSlices(restricted(everywhere("out", 2), "192.168.1.2/32", "fd00:1::2/128"), c.a, c.r)...)
	for n := 1; n <= 2; n++ {
		c.Must(c.node.Addr("lo", narrow(balancerIP(n))...))
	}
	c.run(t, "--cluster-cidr", clusterCIDR)
	check := func(in, out int) {
		t.Helper()
		eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
			c.served(t, c.node, network, external(in, f)["load balancer IP"], masqueraded, "a", "r")
			c.vanishes(t, c.node, network, external(out, f)["load balancer IP"])
		})
	}
	check(1, 2)
	// The node gets another address.
	c.write(t, "node.yaml", nodeObject(c.client.addrs))
	c.programmed(t)
	check(2, 1)
}
