// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestExternalIPTakesOver: a Service whose external IP is somebody else's gets what pods
// and neighbours send there, by the meaning of the field (CVE-2020-8554); kube-nft leaves
// external IPs out where the cluster says so. No external IP takes a ClusterIP over.
func TestExternalIPTakesOver(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		flags   []string
		victim  string // who answers at the victim's address
		kubelet string // who answers at the node's
	}{
		{"allowed", nil, "b", "b"},
		{"not allowed", []string{"--feature-gates", "AllowServiceExternalIPs=false"}, "victim", "kubelet"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			for f := range families {
				c.Serve(c.client.Namespace, "tcp", c.client.at(family(f), 443), "victim")
				c.Serve(c.node.Namespace, "tcp", netip.AddrPortFrom(outside[f], 10250), "kubelet")
			}
			web := service("web", 1, servicePort("", "TCP", 80))
			evil := service("evil", 2, servicePort("a", "TCP", 443), servicePort("b", "TCP", 10250), servicePort("c", "TCP", 80))
			for f := range families {
				evil.Spec.ExternalIPs = append(evil.Spec.ExternalIPs, texts(c.client.addrs[f], outside[f], clusterIP(1)[f])...)
			}
			c.write(t, "web.yaml", withSlices(web, c.a)...)
			c.write(t, "evil.yaml", withSlices(evil, c.b)...)
			c.run(t, append(tt.flags, "--cluster-cidr", clusterCIDR)...)
			for f := range families {
				c.served(t, c.a, "tcp", c.client.at(family(f), 443), eitherSource, tt.victim)
				c.served(t, c.client, "tcp", netip.AddrPortFrom(outside[f], 10250), eitherSource, tt.kubelet)
				c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[f], 80), eitherSource, "a")
				c.served(t, c.a, "tcp", netip.AddrPortFrom(clusterIP(2)[f], 443), eitherSource, "b")
			}
		})
	}
}

// TestLoopbackFromOutside: a neighbour that sends packets to 127.0.0.1 and ::1 to the node
// reaches nothing there, neither what listens for the node's own processes nor node ports
// that are served on localhost (CVE-2020-8558). Were route_localnet set it would.
func TestLoopbackFromOutside(t *testing.T) {
	t.Parallel()
	c := newLocalhost(t)
	for f := range families {
		c.Serve(c.node.Namespace, "tcp", local(family(f), 8081), "secret")
	}
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, servicePort("", "TCP", 80)), 30001), c.a)...)
	c.run(t, localhost)
	c.Must(
		c.client.IP("addr del 127.0.0.1/8 dev lo", "route add 127.0.0.1/32 via "+outside[ip4].String()),
		c.client.IP("addr del ::1/128 dev lo", "route add ::1/128 via "+outside[ip6].String()),
		c.client.Sysctl("net.ipv4.conf.all.route_localnet", "1"),
	)
	for f := range families {
		c.served(t, c.node, "tcp", local(family(f), 30001), eitherSource, "a")
		for _, port := range []uint16{8081, 30001} {
			c.silent(t, c.client, "tcp", local(family(f), port))
		}
	}
	c.checkRouteLocalnet(t)
	c.Must(c.node.Sysctl("net.ipv4.conf.all.route_localnet", "1")) // what kube-proxy's mode iptables does
	c.served(t, c.client, "tcp", local(ip4, 8081), eitherSource, "secret")
}

// TestEndpointsOfTheNode: an EndpointSlice that names loopback or link-local addresses
// leads to nothing there; what trusts whoever gets there, as a cloud's metadata does, is
// out of reach. The API server refuses such an object, and so is such a manifest.
func TestEndpointsOfTheNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	metadata := both("169.254.169.254", "fe80::a9fe:a9fe")
	c.Must(c.node.Addr("lo", narrow(metadata)...))
	c.Serve(c.node.Namespace, "tcp", netip.AddrPortFrom(metadata[ip4], targetPort), "secret")
	for f := range families {
		c.Serve(c.node.Namespace, "tcp", local(family(f), targetPort), "secret")
	}
	addrs := []string{loopbacks[ip4], loopbacks[ip6], metadata[ip4].String(), metadata[ip6].String(), "127.1.2.3", "224.0.0.1", "ff02::1"}
	for i, addr := range addrs {
		s := withNodePort(service("evil-"+string(rune('a'+i)), 10+i, servicePort("", "TCP", 80)), uint16(30010+i))
		one := slice(s, familyOf(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
		one.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{addr}}}
		c.write(t, s.Name+".yaml", s, one)
	}
	c.run(t, "--nodeport-addresses", "all", localhost)
	for i, addr := range addrs {
		if c.proxy.count("level=ERROR", " "+addr+" is a ") != 1 {
			t.Errorf("it is not said once that %s cannot be an endpoint", addr)
		}
		for f := range families {
			for _, to := range []netip.AddrPort{netip.AddrPortFrom(clusterIP(10 + i)[f], 80), netip.AddrPortFrom(outside[f], uint16(30010+i)), local(family(f), uint16(30010+i))} {
				for _, from := range []*host{c.client, c.a, c.node} {
					if a, err := from.ask("tcp", to, silence); err == nil {
						t.Errorf("endpoint %s: %s from %s is answered by %s", addr, to, from.Name(), a.Server)
					}
				}
			}
		}
	}
}

// TestSliceOfAnotherNamespace: an EndpointSlice belongs to Services of its own namespace
// alone, whatever its label says. That it names another namespace's pods is its right
// (CVE-2021-25740): it is for network policies to say who reaches them.
func TestSliceOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := service("web", 1, servicePort("", "TCP", 80))
	other := service("web", 2, servicePort("", "TCP", 80))
	other.Namespace = "evil"
	stray := slice(other, ip4, c.b)
	stray.Name = "stray"
	c.write(t, "web.yaml", withSlices(web, c.a)...)
	c.write(t, "evil.yaml", stray, slice(other, ip6, c.b), other, slice(other, ip4, c.a))
	c.run(t, "--cluster-cidr", clusterCIDR)
	for f := range families {
		c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[f], 80), masqueraded, "a")
	}
	c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(2)[ip4], 80), masqueraded, "a", "b")
	c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(2)[ip6], 80), masqueraded, "b")
}

// TestOddNames: what is no name makes its manifest wrong, is in the log on one line, and
// leaves all else as it is; nothing of it is in the kernel.
func TestOddNames(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := service("web", 1, servicePort("", "TCP", 80))
	c.write(t, "web.yaml", withSlices(web, c.a)...)
	names := []string{`a" : drop; add rule ip kube-nft KUBE-SVC-1 drop; "`, "a\nlevel=ERROR msg=forged", "\x1b[2J\x1b[31mred", strings.Repeat("long", 100), "a\x00b", "ä/b"}
	for i, name := range names {
		s := service("odd", 10+i, servicePort("", "TCP", 80))
		s.Name = name
		s.Spec.SessionAffinity = "ClientIP" // its chains have the name in theirs
		odd := slice(s, ip4, c.b)
		odd.Name = "odd"
		c.write(t, "odd-"+string(rune('a'+i))+".yaml", s, odd)
	}
	c.run(t)
	log := c.proxy.log.String()
	for i, name := range names {
		if _, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(10 + i)[ip4], 80), silence); err == nil {
			t.Errorf("%q is served", name)
		}
	}
	if strings.Contains(log, "\nlevel=ERROR msg=forged") || strings.Contains(log, "\x1b") || strings.Contains(log, "\x00") {
		t.Errorf("the log can be forged:\n%q", log)
	}
	if n := c.proxy.count("level=ERROR", "is no name"); n != len(names) {
		t.Errorf("%d names are refused, want %d", n, len(names))
	}
	for _, word := range []string{"odd", "forged", "long", "drop;"} {
		if ruleset := c.Run(c.node.Namespace, "nft", "list", "ruleset"); strings.Contains(ruleset, word) {
			t.Errorf("%q is in the kernel:\n%s", word, ruleset)
		}
	}
	for f := range families {
		c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[f], 80), own, "a")
	}
}
