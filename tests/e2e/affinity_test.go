// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// sticky gives a Service session affinity.
func sticky(s *corev1.Service, seconds int32) *corev1.Service {
	s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(seconds)}}
	return s
}

// forHours is a timeout that no test waits for.
const forHours = 10800

// allProtocols is everywhere with a port of SCTP besides.
func allProtocols(name string, n int) *corev1.Service {
	s := everywhere(name, n)
	sctp := everyProtocol(80)[2]
	sctp.NodePort = int32(30000 + n)
	s.Spec.Ports = append(s.Spec.Ports, sctp)
	return s
}

// frontends lists all frontends of such a Service, in order.
func frontends(n int, f family) []netip.AddrPort {
	all := external(n, f)
	all["cluster IP"] = netip.AddrPortFrom(clusterIP(n)[f], 80)
	var dsts []netip.AddrPort
	for _, name := range slices.Sorted(maps.Keys(all)) {
		dsts = append(dsts, all[name])
	}
	return dsts
}

// clients are so many clients in one namespace, each with an address of its own.
func (c *cluster) clients(t *testing.T, n int) (all []*host) {
	t.Helper()
	for i := range n {
		h := &host{Namespace: c.client.Namespace, addrs: both("192.168.1.%d", "fd00:1::%d", 100+i), via: outside, bound: true}
		c.Must(c.client.Addr("eth0", wide(h.addrs)...))
		all = append(all, h)
	}
	return all
}

// stays checks that a client is answered by one server through all of some
// frontends, on the first and on later connections, and says by which. If server
// is not "" it is that one.
func (c *cluster) stays(t *testing.T, from *host, network string, sees seen, server string, dsts ...netip.AddrPort) string {
	t.Helper()
	server, err := c.tryStays(from, network, sees, server, dsts...)
	if err != nil {
		t.Error(err)
	}
	return server
}

func (c *cluster) tryStays(from *host, network string, sees seen, server string, dsts ...netip.AddrPort) (string, error) {
	for range 3 {
		for _, dst := range dsts {
			op := fmt.Sprintf("from %s %s to %s %s", from.Name(), from.addrs[familyOf(dst)], network, dst)
			a, err := from.ask(network, dst, patience)
			if err != nil {
				return server, err
			}
			if server == "" {
				server = a.Server
			}
			if a.Server != server {
				return server, fmt.Errorf("%s: answered by %s, and by %s before", op, a.Server, server)
			}
			now := sees
			if a.Server == from.Name() && sees == own {
				now = masqueraded // a pod that is its own endpoint
			}
			if err := c.checkSource(from, a, now); err != nil {
				return server, fmt.Errorf("%s: %w", op, err)
			}
		}
	}
	return server, nil
}

// homes is where clients are at home: the server of each.
type homes map[*host]string

// settle lets clients connect, and says where they stay.
func (c *cluster) settle(t *testing.T, clients []*host, network string, dsts ...netip.AddrPort) homes {
	t.Helper()
	at := make(homes)
	for _, from := range clients {
		at[from] = c.stays(t, from, network, eitherSource, "", dsts...)
	}
	return at
}

// unmoved checks that clients are still where they were.
func (c *cluster) unmoved(t *testing.T, at homes, network string, dsts ...netip.AddrPort) {
	t.Helper()
	for from, server := range at {
		c.stays(t, from, network, eitherSource, server, dsts...)
	}
}

// moved is how many clients are elsewhere than before.
func (before homes) moved(after homes) (n int) {
	for from := range before {
		if before[from] != after[from] {
			n++
		}
	}
	return n
}

// TestAffinity: a client stays with its endpoint, through whichever frontend of a
// Service port it comes, and the endpoint sees what it sees without affinity
// (A3.12).
func TestAffinity(t *testing.T) {
	t.Parallel()
	detected := map[string]seen{"client": masqueraded, "node": masqueraded, "b": own, "s": own}
	for _, tt := range []struct {
		name      string
		flags     []string
		clusterIP map[string]seen
		nodePorts func(family) []netip.Addr
	}{
		{"A3.12 local pods detected", []string{"--cluster-cidr", clusterCIDR}, detected, nil},
		{"A3.12 nobody is told from pods", nil, map[string]seen{}, nil},
		{"A3.12 masquerade all", []string{"--masquerade-all", "--cluster-cidr", clusterCIDR},
			map[string]seen{"client": masqueraded, "node": masqueraded, "b": masqueraded, "s": masqueraded}, nil},
		{"A3.12 node ports on all addresses", []string{"--nodeport-addresses", "all", "--cluster-cidr", clusterCIDR}, detected,
			func(f family) []netip.Addr { return []netip.Addr{outside[f], inside[f], secondary[f]} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.write(t, "web.yaml", withSlices(sticky(allProtocols("web", 1), forHours), c.a, c.b, c.r)...)
			c.write(t, "plain.yaml", withSlices(everywhere("plain", 2), c.a, c.b, c.r)...)
			c.run(t, tt.flags...)
			all := append(c.clients(t, 10), c.node, c.b, c.s)
			at := make(map[family]map[string]homes)
			eachWay(t, func(t *testing.T, network string, f family) {
				if at[f] == nil {
					at[f] = make(map[string]homes)
				}
				at[f][network] = make(homes)
				for _, from := range all {
					server := c.stays(t, from, network, tt.clusterIP[from.Name()], "", netip.AddrPortFrom(clusterIP(1)[f], 80))
					for _, dst := range external(1, f) {
						c.stays(t, from, network, masqueraded, server, dst)
					}
					if tt.nodePorts != nil && from != c.node { // who has these addresses, and so is another client at each
						for _, addr := range tt.nodePorts(f) {
							c.stays(t, from, network, masqueraded, server, netip.AddrPortFrom(addr, 30001))
						}
					}
					at[f][network][from] = server
				}
			})
			for _, f := range families {
				for i, network := range networks {
					if servers := slices.Compact(slices.Sorted(maps.Values(at[f][network]))); len(servers) == 1 {
						t.Errorf("%s %v: all clients are at %s", network, f, servers[0])
					}
					if other := networks[(i+1)%3]; at[f][network].moved(at[f][other]) == 0 {
						t.Errorf("%v: every client has the same endpoint for %s and %s", f, network, other)
					}
				}
				// Others go on as before.
				c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(2)[f], 80), eitherSource, "a", "b", "r")
			}
		})
	}
}

// TestAffinityForeign: what a Service port remembers are its own endpoints, whoever
// else has endpoints and ports in common with it (A3.12).
func TestAffinityForeign(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		flags    []string
		external bool
	}{
		{"A3.12 node ports on the primary address", []string{"--cluster-cidr", clusterCIDR}, true},
		{"A3.12 node ports on all addresses", []string{"--nodeport-addresses", "all", "--cluster-cidr", clusterCIDR}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			// The node port of one is the port of another; the other's endpoint is also
			// that of a third one with affinity.
			c.write(t, "one.yaml", withSlices(sticky(withNodePort(service("one", 1, everyProtocol(80)...), 30080), forHours), c.a)...)
			two := service("two", 2, everyProtocol(30080)...)
			two.Spec.ExternalIPs = texts(externalIP(2)[ip4], externalIP(2)[ip6])
			c.write(t, "two.yaml", withSlices(two, c.b)...)
			c.write(t, "three.yaml", withSlices(sticky(service("three", 3, everyProtocol(80)...), forHours), c.b)...)
			c.run(t, tt.flags...)
			eachWay(t, func(t *testing.T, network string, f family) {
				for _, from := range []*host{c.client, c.s, c.node} {
					c.served(t, from, network, netip.AddrPortFrom(clusterIP(2)[f], 30080), eitherSource, "b")
					if tt.external {
						c.served(t, from, network, netip.AddrPortFrom(externalIP(2)[f], 30080), eitherSource, "b")
					}
					c.served(t, from, network, netip.AddrPortFrom(outside[f], 30080), eitherSource, "a")
					c.served(t, from, network, netip.AddrPortFrom(clusterIP(1)[f], 80), eitherSource, "a")
				}
			})
		})
	}
}

// TestAffinityPolicies: traffic policies change under clients that are known. Who
// may only reach this node's endpoints stays with one of them, others with any; back
// under the policy Cluster everybody is where they were (A3.12, A3.1, A3.2).
func TestAffinityPolicies(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)[:2]...), 30080), c.a, c.b, c.r)...)
	flips := sticky(everywhere("flips", 2), forHours)
	pods := []*host{c.a, c.b, c.r}
	c.write(t, "flips.yaml", withSlices(flips, pods...)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	clients := c.clients(t, 8)
	everybody := append(clients, c.node, c.b, c.s)
	type way struct {
		network string
		f       family
	}
	at := make(map[way]homes)
	for _, f := range families {
		for _, network := range networks[:2] {
			at[way{network, f}] = c.settle(t, everybody, network, frontends(2, f)...)
		}
	}
	here := map[string]bool{"a": true, "b": true}
	stop := c.flow(t)
	for range 2 {
		for _, policies := range []struct{ external, internal bool }{{true, false}, {true, true}, {false, true}, {false, false}} {
			flips.Spec.ExternalTrafficPolicy, flips.Spec.InternalTrafficPolicy = "Cluster", nil
			if policies.external {
				externalLocal(flips)
			}
			if policies.internal {
				internalLocal(flips)
			}
			c.write(t, "flips.yaml", withSlices(flips, pods...)...)
			c.programmed(t)
			for w, homes := range at {
				inner := netip.AddrPortFrom(clusterIP(2)[w.f], 80)
				for from, home := range homes {
					outer := slices.DeleteFunc(frontends(2, w.f), func(a netip.AddrPort) bool { return a == inner })
					isClient := slices.Contains(clients, from)
					sees := masqueraded
					if policies.external && from != c.node {
						sees = own
					}
					if policies.external && isClient {
						server := c.stays(t, from, w.network, sees, "", outer...)
						if !here[server] {
							t.Errorf("%+v: %s is at %s, which is elsewhere", policies, from.addrs[w.f], server)
						}
					} else {
						c.stays(t, from, w.network, sees, home, outer...)
					}
					sees = masqueraded
					if from == c.b || from == c.s {
						sees = own
					}
					if policies.internal {
						if server := c.stays(t, from, w.network, sees, "", inner); !here[server] {
							t.Errorf("%+v: %s is at %s, which is elsewhere", policies, from.addrs[w.f], server)
						}
					} else {
						c.stays(t, from, w.network, sees, home, inner)
					}
				}
			}
		}
	}
	t.Logf("%d new connections meanwhile", stop())
}

// TestAffinityHost: endpoints on the network of a node, this one and another, are
// stayed with like others (A3.12).
func TestAffinityHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		service *corev1.Service
		servers []string // of the client
	}{
		{"A3.12 policy Cluster", sticky(everywhere("web", 1), forHours), []string{"node", "node1", "r"}},
		{"A3.12 policy Local", externalLocal(sticky(everywhere("web", 1), forHours)), []string{"a", "node"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			for _, h := range []*host{c.node, c.node1} {
				for _, f := range families {
					for _, network := range networks[:2] {
						c.Serve(h.Namespace, network, h.at(f, targetPort), h.Name())
					}
				}
			}
			objects := withSlices(tt.service, c.node, c.node1, c.r)
			if len(tt.servers) == 2 {
				objects = withSlices(tt.service, c.node, c.a)
			}
			c.write(t, "web.yaml", eachEndpoint(objects, func(i int, e *discoveryv1.Endpoint) {
				if i == 0 {
					e.NodeName = new("node-0")
				}
			})...)
			c.run(t, "--cluster-cidr", clusterCIDR)
			all := append(c.clients(t, 30), c.b, c.node)
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				at := c.settle(t, all, network, frontends(1, f)...)
				c.unmoved(t, at, network, frontends(1, f)...)
				servers := slices.Compact(slices.Sorted(maps.Values(at)))
				if !slices.Equal(servers, tt.servers) {
					t.Errorf("clients are at %v, want them at %v", servers, tt.servers)
				}
			})
		})
	}
}
