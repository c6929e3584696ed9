// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// localhost is the flag that has node ports served on loopback.
const localhost = "--localhost-nodeports"

// local is a port of a loopback address.
func local(f family, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(loopbacks[f]), port)
}

// newLocalhost builds a cluster on whose node a relay may hold UDP ports that the
// kernel chose: others than those that hosts ask from.
func newLocalhost(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t)
	c.Must(c.node.Sysctl("net.ipv4.ip_local_port_range", "32768 39999"))
	return c
}

// checkRouteLocalnet checks that no interface of the node lets packets with loopback
// addresses in or out.
func (c *cluster) checkRouteLocalnet(t *testing.T) {
	t.Helper()
	if out := c.Run(c.node.Namespace, "sh", "-c", "cat /proc/sys/net/ipv4/conf/*/route_localnet"); strings.Trim(out, "0\n") != "" {
		t.Errorf("route_localnet is not 0 everywhere: %q", out)
	}
}

// TestLocalhostNodePort: with the flag, node ports are served on loopback, whatever
// the policies and wherever else they are served; endpoints see the node (A1.7).
func TestLocalhostNodePort(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		flags     []string
		elsewhere bool // on the node's primary address
	}{
		{"A1.7 primary", []string{localhost}, true},
		{"A1.7 all", []string{localhost, "--nodeport-addresses", "all"}, true},
		{"A1.7 localhost only", []string{localhost, "--nodeport-addresses", "127.0.0.0/8,::1/128"}, false},
		{"A1.7 as kube-proxy spells it", []string{"--iptables-localhost-nodeports", "--masquerade-all"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newLocalhost(t)
			c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30001), c.a, c.r)...)
			c.write(t, "external.yaml", withSlices(externalLocal(everywhere("external", 2)), c.a, c.r)...)
			c.write(t, "internal.yaml", withSlices(internalLocal(everywhere("internal", 3)), c.a, c.r)...)
			c.write(t, "both.yaml", withSlices(internalLocal(externalLocal(everywhere("both", 4))), c.r)...)
			c.write(t, "idle.yaml", withSlices(everywhere("idle", 5))...)
			c.write(t, "plain.yaml", withSlices(service("plain", 6, everyProtocol(30006)...), c.a)...)
			c.run(t, append(tt.flags, "--cluster-cidr", clusterCIDR)...)
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				for port := uint16(30001); port <= 30003; port++ {
					c.served(t, c.node, network, local(f, port), masqueraded, "a", "r")
				}
				c.served(t, c.node, network, local(f, 30004), masqueraded, "r")
				c.refused(t, c.node, network, local(f, 30005))
				c.refused(t, c.node, network, local(f, 30006))
				if other := netip.AddrPortFrom(outside[f], 30001); tt.elsewhere {
					c.served(t, c.node, network, other, masqueraded, "a", "r")
					c.served(t, c.client, network, other, masqueraded, "a", "r")
				} else {
					c.refused(t, c.node, network, other)
					c.refused(t, c.client, network, other)
				}
			})
			if n := c.proxy.count("SCTP node ports are not served on localhost", "default/web"); n != 1 {
				t.Errorf("it was said %d times that SCTP is not served, want once", n)
			}
			c.checkRouteLocalnet(t)
		})
	}
}

// TestLocalhostIsOptIn: without the flag nothing listens anywhere but for metrics,
// if that is asked for (A1.7, A1.8).
func TestLocalhostIsOptIn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
	}{
		{"A1.7 by default", nil},
		{"A1.7 loopback listed", []string{"--nodeport-addresses", "127.0.0.0/8,::1/128"}},
		{"A1.7 said no", []string{localhost + "=false"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newLocalhost(t)
			c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a)...)
			c.run(t, append(tt.flags, "--metrics-bind-address=", "--healthz-bind-address=")...)
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				c.refused(t, c.node, network, local(f, 30001))
			})
			const listening = "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 | awk '$4 == \"0A\" || $4 == \"07\"'"
			if out := c.Run(c.node.Namespace, "sh", "-c", listening); out != "" {
				t.Errorf("sockets listen:\n%s", out)
			}
			c.checkRouteLocalnet(t)
		})
	}
}

// TestLocalhostChanges: a connection through loopback lives on while its Service is
// there, and new ones go where it leads by then (A1.7).
func TestLocalhostChanges(t *testing.T) {
	t.Parallel()
	c := newLocalhost(t)
	web := everywhere("web", 1)
	update := func(pods ...*host) {
		t.Helper()
		c.write(t, "web.yaml", withSlices(web, pods...)...)
		c.programmed(t)
	}
	c.write(t, "web.yaml", withSlices(web, c.a)...)
	c.run(t, localhost)
	var conns []*netlab.Conn
	for _, f := range families {
		conn, err := c.node.Dial(t.Context(), "tcp", local(f, 30001), netlab.Timeout(patience))
		c.Must(err)
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	check := func(port uint16, servers ...string) {
		t.Helper()
		for f, conn := range conns {
			if a, err := conn.Ask(t.Context()); err != nil || a.Server != "a" {
				t.Errorf("established connection got %v, %v, want a", a, err)
			}
			for _, network := range networks[:2] {
				if len(servers) == 0 {
					c.refused(t, c.node, network, local(family(f), port))
				} else {
					c.served(t, c.node, network, local(family(f), port), masqueraded, servers...)
				}
			}
		}
	}
	check(30001, "a")
	update(c.b, c.r)
	check(30001, "b", "r")
	update()
	check(30001)
	update(c.r)
	check(30001, "r")
	withNodePort(web, 30002)
	update(c.b)
	check(30001)
	check(30002, "b")
	web.Spec.Type = "ClusterIP"
	for i := range web.Spec.Ports {
		web.Spec.Ports[i].NodePort = 0
	}
	update(c.b)
	check(30002)
	c.remove(t, "web.yaml")
	c.programmed(t)
	for _, conn := range conns {
		if a, err := conn.Ask(t.Context()); !errors.Is(err, netlab.ErrReset) {
			t.Errorf("connection of a Service that is gone got %v, %v, want a reset", a, err)
		}
	}
	c.checkRouteLocalnet(t)
}

// TestLocalhostTaken: a port that somebody else listens on is one warning and
// served as soon as it is free, a missing IPv6 loopback is none, and after a restart
// everything is as before (A1.7).
func TestLocalhostTaken(t *testing.T) {
	t.Parallel()
	c := newLocalhost(t)
	c.Must(c.node.Sysctl("net.ipv6.conf.lo.disable_ipv6", "1"))
	taken := c.Serve(c.node.Namespace, "tcp", local(ip4, 30001), "node")
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a)...)
	c.write(t, "dns.yaml", withSlices(everywhere("dns", 2), c.b)...)
	c.run(t, localhost)
	c.served(t, c.node, "tcp", local(ip4, 30001), eitherSource, "node")
	c.served(t, c.node, "udp", local(ip4, 30001), masqueraded, "a")
	c.served(t, c.node, "tcp", local(ip4, 30002), masqueraded, "b")
	c.served(t, c.node, "tcp", netip.AddrPortFrom(outside[ip4], 30001), masqueraded, "a")
	c.Must(taken.Close())
	c.Eventually(patience, func() error { return c.tryServed(c.node, "tcp", local(ip4, 30001), masqueraded, "a") })
	for what, words := range map[string][]string{
		"that a port is taken":     {"level=WARN", "default/web", "127.0.0.1:30001/tcp", "address already in use"},
		"that a port is free":      {"level=INFO", "default/web", "127.0.0.1:30001/tcp"},
		"anything else of concern": {"level=WARN"},
		"that there is no ::1":     {"level=INFO", "addr=::1"},
	} {
		if n := c.proxy.count(words...); n != 1 {
			t.Errorf("it was said %d times %s, want once", n, what)
		}
	}
	c.proxy.stop(t)
	c.refused(t, c.node, "tcp", local(ip4, 30001))
	c.run(t, localhost)
	c.served(t, c.node, "tcp", local(ip4, 30001), masqueraded, "a")
	c.served(t, c.node, "udp", local(ip4, 30001), masqueraded, "a")
}

// TestLocalhostClaims: of two Services with one node port the same one is served on
// loopback as on the node's address (A1.7, A1.17).
func TestLocalhostClaims(t *testing.T) {
	t.Parallel()
	c := newLocalhost(t)
	c.write(t, "z.yaml", withSlices(withNodePort(service("first", 1, everyProtocol(80)[:2]...), 30001), c.a)...)
	c.write(t, "a.yaml", withSlices(withNodePort(service("second", 2, everyProtocol(80)[:2]...), 30001), c.b)...)
	c.run(t, localhost)
	check := func(server string) {
		eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
			c.served(t, c.node, network, local(f, 30001), masqueraded, server)
			c.served(t, c.client, network, netip.AddrPortFrom(outside[f], 30001), masqueraded, server)
		})
	}
	check("a")
	c.remove(t, "z.yaml")
	c.programmed(t)
	check("b")
}
