// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestServiceChanges: packets follow a Service through its changes, one edit at
// a time (A1.1, A1.2, A1.6, A1.9).
func TestServiceChanges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.run(t)
	ips := func(ip func(int) [2]netip.Addr, n int) []netip.Addr { both := ip(n); return both[:] }
	plain := func() *corev1.Service { return service("web", 1, everyProtocol(80)...) }
	type state struct {
		clusterIP, port int
		nodePort        uint16
		balancer        int
		protocols       []string
		servers         []string
	}
	usual := state{1, 80, 0, 0, networks, []string{"a"}}
	with := func(change func(*state)) state { s := usual; change(&s); return s }
	for _, tt := range []struct {
		name    string
		service *corev1.Service
		pods    []*host
		want    state
	}{
		{"A1.1 ClusterIP", plain(), []*host{c.a}, usual},
		{"A1.6 becomes NodePort", withNodePort(plain(), 30080), []*host{c.a}, with(func(s *state) { s.nodePort = 30080 })},
		{"A1.6 other node port", withNodePort(plain(), 30090), []*host{c.a}, with(func(s *state) { s.nodePort = 30090 })},
		{"A1.9 becomes LoadBalancer", withIngress(withNodePort(plain(), 30090), ips(balancerIP, 1)...), []*host{c.a, c.b},
			with(func(s *state) { s.nodePort, s.balancer, s.servers = 30090, 1, []string{"a", "b"} })},
		{"A1.9 other address, no node port", withIngress(plain(), ips(balancerIP, 2)...), []*host{c.b},
			with(func(s *state) { s.balancer, s.servers = 2, []string{"b"} })},
		{"A1.1 back to ClusterIP", plain(), []*host{c.a}, usual},
		{"A1.1 other port", service("web", 1, everyProtocol(81)...), []*host{c.a}, with(func(s *state) { s.port = 81 })},
		{"A1.1 fewer protocols", service("web", 1, everyProtocol(80)[1:2]...), []*host{c.a}, with(func(s *state) { s.protocols = networks[1:2] })},
		{"A1.1 other protocols", service("web", 1, everyProtocol(80)[2:]...), []*host{c.r}, with(func(s *state) { s.protocols, s.servers = networks[2:], []string{"r"} })},
		{"A1.1 other cluster IP", service("web", 2, everyProtocol(80)...), []*host{c.a, c.b, c.r}, with(func(s *state) { s.clusterIP, s.servers = 2, []string{"a", "b", "r"} })},
	} {
		c.write(t, "web.yaml", withSlices(tt.service, tt.pods...)...)
		c.programmed(t)
		t.Run(tt.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, network string, f family) {
				is := contains(tt.want.protocols, network)
				for _, n := range []int{1, 2} {
					for _, port := range []int{80, 81} {
						c.either(t, is && n == tt.want.clusterIP && port == tt.want.port, network,
							netip.AddrPortFrom(clusterIP(n)[f], uint16(port)), n == tt.want.clusterIP, tt.want.servers)
					}
					c.either(t, is && n == tt.want.balancer, network, netip.AddrPortFrom(balancerIP(n)[f], 80), false, tt.want.servers)
				}
				for _, port := range []uint16{30080, 30090} {
					c.either(t, is && port == tt.want.nodePort, network, netip.AddrPortFrom(outside[f], port), true, tt.want.servers)
				}
			})
		})
	}
}

// either checks that a frontend is served, or else refused or silent. Silence takes
// its time and has nothing to do with the network: it is looked at once.
func (c *cluster) either(t *testing.T, served bool, network string, dst netip.AddrPort, refused bool, servers []string) {
	t.Helper()
	switch {
	case served:
		c.served(t, c.client, network, dst, eitherSource, servers...)
	case refused:
		c.refused(t, c.client, network, dst)
	case network == "tcp":
		c.silent(t, c.client, network, dst)
	}
}

// TestReuse: what belonged to one Service belongs to another after one edit: its
// cluster IP, its external IP, its endpoint.
func TestReuse(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	one, two := service("one", 1, everyProtocol(80)...), service("two", 2, everyProtocol(80)...)
	one.Spec.ExternalIPs = texts(externalIP(1)[ip4], externalIP(1)[ip6])
	check := func(name string, want map[netip.AddrPort]string) {
		t.Helper()
		c.programmed(t)
		t.Run(name, func(t *testing.T) {
			for dst, server := range want {
				for _, network := range networks {
					c.served(t, c.client, network, dst, eitherSource, server)
				}
			}
		})
	}
	frontends := func(first, second, external string) map[netip.AddrPort]string {
		want := make(map[netip.AddrPort]string)
		for f := range families {
			want[netip.AddrPortFrom(clusterIP(1)[f], 80)] = first
			want[netip.AddrPortFrom(clusterIP(2)[f], 80)] = second
			want[netip.AddrPortFrom(externalIP(1)[f], 80)] = external
		}
		return want
	}
	c.write(t, "all.yaml", append(withSlices(one, c.a), withSlices(two, c.b)...)...)
	c.run(t)
	check("A1.1 before", frontends("a", "b", "a"))
	c.write(t, "all.yaml", append(withSlices(one, c.b), withSlices(two, c.a)...)...)
	check("A2.9 endpoints change places", frontends("b", "a", "b"))
	c.write(t, "all.yaml", append(withSlices(service("three", 1, everyProtocol(80)...), c.r), withSlices(two, c.a)...)...)
	c.programmed(t)
	two.Spec.ExternalIPs = one.Spec.ExternalIPs
	c.write(t, "all.yaml", append(withSlices(service("three", 1, everyProtocol(80)...), c.r), withSlices(two, c.a)...)...)
	check("A1.1 another Service has the cluster IP and the external IP", frontends("r", "a", "a"))
	swapped := append(withSlices(service("three", 2, everyProtocol(80)...), c.r), withSlices(service("two", 1, everyProtocol(80)...), c.a)...)
	swapped[0].(*corev1.Service).Spec.ExternalIPs = one.Spec.ExternalIPs
	c.write(t, "all.yaml", swapped...)
	check("A1.1 cluster IPs change places", frontends("a", "r", "r"))
}

// TestGrowth: one event brings more elements than the sets of a table were made
// for, in one family or in both, and nothing of it is lost.
func TestGrowth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		ports [2]int // that have endpoints, by family
	}{
		{"IPv4 grows", [2]int{500, 3}},
		{"IPv6 grows", [2]int{3, 500}},
		{"both grow", [2]int{500, 500}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			var ports []corev1.ServicePort
			for p := range max(tt.ports[ip4], tt.ports[ip6]) {
				ports = append(ports, servicePort(fmt.Sprint("p", p), "TCP", uint16(1000+p)))
			}
			s := service("crowd", 1, ports...)
			endpoints := withSlices(s, c.a, c.b)[1:]
			for f, o := range endpoints {
				one := o.(*discoveryv1.EndpointSlice)
				one.Ports = one.Ports[:tt.ports[f]]
			}
			c.write(t, "slices.yaml", endpoints...)
			c.run(t)
			c.write(t, "service.yaml", s)
			c.programmed(t)
			for _, f := range families {
				for p := range ports {
					dst := netip.AddrPortFrom(clusterIP(1)[f], uint16(1000+p))
					if _, err := c.client.ask("tcp", dst, patience); (err == nil) != (p < tt.ports[f]) {
						t.Fatalf("port %d of %d that %v has: %v", p, tt.ports[f], f, err)
					}
				}
			}
		})
	}
}
