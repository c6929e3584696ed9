// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLoadBalancer: the addresses of a load balancer are served (A1.9), unless
// it translates packets itself (A1.10); so are external IPs (A1.11).
func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := service("web", 1, everyProtocol(80)...)
	withIngress(web, balancerIP(1)[ip4], balancerIP(1)[ip6], balancerIP(2)[ip4], balancerIP(3)[ip6])
	web.Status.LoadBalancer.Ingress[2].IPMode = new(corev1.LoadBalancerIPModeVIP)
	for f := range families {
		web.Status.LoadBalancer.Ingress = append(web.Status.LoadBalancer.Ingress,
			corev1.LoadBalancerIngress{IP: balancerIP(9)[f].String(), IPMode: new(corev1.LoadBalancerIPModeProxy)},
			corev1.LoadBalancerIngress{Hostname: "balancer.example.org"})
	}
	web.Spec.ExternalIPs = texts(externalIP(1)[ip4], externalIP(1)[ip6], externalIP(2)[ip6])
	c.write(t, "web.yaml", withSlices(web, c.a, c.r)...)
	// What counts is the status, not the type.
	status := service("status", 2, everyProtocol(80)...)
	withIngress(status, balancerIP(4)[ip4], balancerIP(4)[ip6]).Spec.Type = corev1.ServiceTypeClusterIP
	c.write(t, "status.yaml", withSlices(status, c.b)...)
	// The load balancer that translates is somewhere outside.
	c.Must(c.client.Addr("lo", narrow(balancerIP(9))...))
	c.run(t, "--cluster-cidr", clusterCIDR)
	eachWay(t, func(t *testing.T, network string, f family) {
		addrs := map[string]netip.Addr{"A1.9 first": balancerIP(1)[f], "A1.11 external IP": externalIP(1)[f]}
		if f == ip4 {
			addrs["A1.9 second"] = balancerIP(2)[f]
		} else {
			addrs["A1.9 second"], addrs["A1.11 second"] = balancerIP(3)[f], externalIP(2)[f]
		}
		for name, addr := range addrs {
			t.Run(name, func(t *testing.T) {
				for _, from := range []*host{c.client, c.node, c.b, c.s} {
					c.served(t, from, network, netip.AddrPortFrom(addr, 80), masqueraded, "a", "r")
				}
				if addr != externalIP(1)[f] {
					c.silent(t, c.client, network, netip.AddrPortFrom(addr, 81))
				}
			})
		}
		c.served(t, c.client, network, netip.AddrPortFrom(balancerIP(4)[f], 80), masqueraded, "b")
		proxy := netip.AddrPortFrom(balancerIP(9)[f], 80)
		s := c.Serve(c.client.Namespace, network, proxy, "balancer")
		c.served(t, c.b, network, proxy, eitherSource, "balancer")
		c.served(t, c.node, network, proxy, eitherSource, "balancer")
		c.Must(s.Close())
	})
}

// TestConflicts: of two Services with one frontend the oldest has it, the other
// is logged and takes over when the first one goes (A1.17, F6).
func TestConflicts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	claim := func(name string, n int, age time.Duration, pod *host) {
		s := service(name, n, everyProtocol(80)...)
		s.CreationTimestamp = metav1.NewTime(begin.Add(-age))
		s.Spec.ExternalIPs = texts(externalIP(1)[ip4], externalIP(1)[ip6])
		c.write(t, name+".yaml", withSlices(s, pod)...)
	}
	check := func(name, server string) {
		t.Helper()
		c.programmed(t)
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, network string, f family) {
				c.served(t, c.client, network, netip.AddrPortFrom(externalIP(1)[f], 80), masqueraded, server)
			})
		})
	}
	claim("middle", 1, 2*time.Minute, c.a)
	claim("young", 2, time.Minute, c.b)
	c.start(t)
	check("A1.17 the oldest has it", "a")
	c.proxy.logs(t, "claim", externalIP(1)[ip4].String(), "default/young", "default/middle")
	claim("old", 3, 3*time.Minute, c.r)
	check("A1.17 an older one comes", "r")
	c.remove(t, "old.yaml")
	check("A1.17 it goes again", "a")
	c.remove(t, "middle.yaml")
	check("A1.17 the last one takes over", "b")
	// All along each has its own cluster IP. No external IP takes it over, not even
	// a port of it that its owner does not use; not before it is free.
	thief := service("thief", 4, append(everyProtocol(80), servicePort("more", "TCP", 81))...)
	thief.CreationTimestamp = metav1.NewTime(begin.Add(-time.Hour))
	thief.Spec.ExternalIPs = texts(clusterIP(2)[ip4], clusterIP(2)[ip6])
	c.write(t, "thief.yaml", withSlices(thief, c.s)...)
	c.programmed(t)
	eachWay(t, func(t *testing.T, network string, f family) {
		c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(2)[f], 80), own, "b")
	})
	for _, f := range families {
		c.refused(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(2)[f], 81))
	}
	c.proxy.logs(t, "claim", clusterIP(2)[ip4].String()+":81", "default/thief:more", "default/young")
	c.remove(t, "young.yaml")
	c.programmed(t)
	for _, f := range families {
		for _, port := range []uint16{80, 81} {
			c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(2)[f], port), masqueraded, "s")
		}
	}
}

// TestPolicyConflicts: a frontend that changes hands changes its policy too (A1.17,
// A3.2).
func TestPolicyConflicts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	begin := time.Now().Add(-time.Hour).Truncate(time.Second)
	claim := func(name string, n int, local bool, pods ...*host) {
		s := service(name, n, everyProtocol(80)[:2]...)
		s.CreationTimestamp = metav1.NewTime(begin.Add(-time.Duration(n) * time.Minute))
		s.Spec.ExternalIPs = texts(externalIP(1)[ip4], externalIP(1)[ip6])
		if local {
			externalLocal(s)
		}
		c.write(t, name+".yaml", withSlices(s, pods...)...)
	}
	check := func(name string, sees seen, servers ...string) {
		t.Helper()
		c.programmed(t)
		t.Run(name, func(t *testing.T) {
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				c.served(t, c.client, network, netip.AddrPortFrom(externalIP(1)[f], 80), sees, servers...)
			})
		})
	}
	c.run(t, "--cluster-cidr", clusterCIDR)
	claim("middle", 2, false, c.a, c.r)
	claim("young", 1, true, c.b, c.s)
	check("A1.17 the oldest has it, under Cluster", masqueraded, "a", "r")
	claim("old", 3, true, c.b, c.r)
	check("A1.17 an older one comes, under Local", own, "b")
	claim("middle", 2, true, c.a, c.r)
	check("A1.17 another one's policy means nothing", own, "b")
	c.remove(t, "old.yaml")
	check("A1.17 it goes again", own, "a")
	c.remove(t, "middle.yaml")
	check("A1.17 the last one takes over", own, "b")
	claim("young", 1, false, c.b, c.s)
	check("A3.2 and changes its policy", masqueraded, "b", "s")
}

// TestNodePortsLast: an external IP that is an address of the node keeps its
// connections, whoever has the same number as a node port, and under whichever
// policy (A1.6).
func TestNodePortsLast(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	one := service("one", 1, servicePort("http", corev1.ProtocolTCP, 30080))
	one.Spec.ExternalIPs = []string{outside[ip4].String(), outside[ip6].String()}
	c.write(t, "one.yaml", withSlices(one, c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for _, two := range []*corev1.Service{
		withNodePort(service("two", 2, servicePort("http", corev1.ProtocolTCP, 80)), 30080),
		externalLocal(withNodePort(service("two", 2, servicePort("http", corev1.ProtocolTCP, 80)), 30080)),
	} {
		for _, endpoint := range []*host{c.b, c.r} {
			c.write(t, "two.yaml", withSlices(two, endpoint)...)
			c.programmed(t)
			for f := range outside {
				for _, from := range []*host{c.client, c.s, c.b, c.node} {
					a, err := from.ask("tcp", netip.AddrPortFrom(outside[f], 30080), patience)
					if err != nil || a.Server != "a" {
						t.Errorf("%s, policy %q, endpoint %s: %s, %v", from.Name(), two.Spec.ExternalTrafficPolicy, endpoint.Name(), a.Server, err)
					}
				}
			}
		}
	}
}
