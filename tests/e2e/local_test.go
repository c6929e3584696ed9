// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestExternalLocal: under the external traffic policy Local who is outside
// reaches the endpoints on this node and keeps its address, even if there are
// none; local pods and the node reach all endpoints (A2.5, A3.2, A3.5, A3.6). The
// cluster IP has nothing to do with it.
func TestExternalLocal(t *testing.T) {
	t.Parallel()
	detected := map[string]seen{"client": masqueraded, "node": masqueraded, "b": own, "s": own}
	masqueradeAll := map[string]seen{"client": masqueraded, "node": masqueraded, "b": masqueraded, "s": masqueraded}
	everyAddress := func(f family) []netip.Addr {
		return []netip.Addr{outside[f], inside[f], secondary[f], gateway[f]}
	}
	primary := func(f family) []netip.Addr { return outside[f : f+1] }
	for _, tt := range []struct {
		name      string
		flags     []string
		pods      bool            // local pods are told from others
		clusterIP map[string]seen // what servers see through the cluster IP
		nodePorts func(family) []netip.Addr
	}{
		{"A3.2 local pods detected", []string{"--cluster-cidr", clusterCIDR}, true, detected, primary},
		{"A3.2 nobody is told from pods", nil, false,
			map[string]seen{"client": own, "node": own, "b": own, "s": own}, primary},
		{"A3.2 masquerade all", []string{"--masquerade-all", "--cluster-cidr", clusterCIDR}, true, masqueradeAll, primary},
		{"A3.2 masquerade all, nobody is told from pods", []string{"--masquerade-all"}, false, masqueradeAll, primary},
		{"A1.6 all addresses", []string{"--nodeport-addresses", "all", "--cluster-cidr", clusterCIDR}, true, detected, everyAddress},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.write(t, "here.yaml", withSlices(externalLocal(everywhere("here", 1)), c.a, c.r)...)
			c.write(t, "crowd.yaml", withSlices(externalLocal(everywhere("crowd", 2)), c.a, c.b, c.r)...)
			c.write(t, "away.yaml", withSlices(externalLocal(everywhere("away", 3)), c.r)...)
			c.write(t, "idle.yaml", withSlices(externalLocal(everywhere("idle", 4)))...)
			c.run(t, tt.flags...)
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				for _, from := range []*host{c.client, c.b, c.s, c.node} {
					clusterIPs := tt.clusterIP[from.Name()]
					c.served(t, from, network, netip.AddrPortFrom(clusterIP(1)[f], 80), clusterIPs, "a", "r")
					c.served(t, from, network, netip.AddrPortFrom(clusterIP(3)[f], 80), clusterIPs, "r")
					c.refused(t, from, network, netip.AddrPortFrom(clusterIP(4)[f], 80))
					pod := tt.pods && (from == c.b || from == c.s)
					for _, addr := range tt.nodePorts(f) {
						if addr == gateway[f] && (from == c.s || from == c.client) {
							continue // these have another way there, or none
						}
						c.checkExternalLocal(t, from, pod, network, func(n int) map[string]netip.AddrPort {
							all := external(n, f)
							all["node port"] = netip.AddrPortFrom(addr, all["node port"].Port())
							return all
						})
					}
				}
			})
		})
	}
}

// checkExternalLocal checks the frontends of TestExternalLocal's Services. pod says
// whether who asks is taken for a local pod.
func (c *cluster) checkExternalLocal(t *testing.T, from *host, pod bool, network string, frontends func(n int) map[string]netip.AddrPort) {
	t.Helper()
	for _, here := range frontends(1) {
		switch {
		case pod:
			c.served(t, from, network, here, own, "a", "r")
		case from == c.node && here.Addr() == gateway[familyOf(here)]:
			// The node's own address then is a pod's, to look at.
			c.served(t, from, network, here, eitherSource, "a", "r")
		case from == c.node:
			c.served(t, from, network, here, masqueraded, "a", "r")
		default:
			c.served(t, from, network, here, own, "a")
		}
	}
	for _, crowd := range frontends(2) {
		if pod || from == c.node {
			c.served(t, from, network, crowd, eitherSource, "a", "b", "r")
		} else {
			c.served(t, from, network, crowd, eitherSource, "a", "b")
		}
	}
	for _, away := range frontends(3) {
		if pod || from == c.node {
			c.served(t, from, network, away, eitherSource, "r")
		} else {
			c.silent(t, from, network, away)
		}
	}
	for _, idle := range frontends(4) {
		c.refused(t, from, network, idle)
	}
}

func familyOf(a netip.AddrPort) family {
	if a.Addr().Is6() {
		return ip6
	}
	return ip4
}

// TestInternalLocal: under the internal traffic policy Local a cluster IP leads to
// the endpoints on this node from everywhere, and packets vanish if there are only
// others (A3.1). External frontends have nothing to do with it.
func TestInternalLocal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
		sees  map[string]seen
	}{
		{"A3.1 local pods detected", []string{"--cluster-cidr", clusterCIDR},
			map[string]seen{"client": masqueraded, "node": masqueraded, "b": own, "s": own}},
		{"A3.1 nobody is told from pods", nil, map[string]seen{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.write(t, "here.yaml", withSlices(internalLocal(everywhere("here", 1)), c.a, c.r)...)
			c.write(t, "away.yaml", withSlices(internalLocal(everywhere("away", 2)), c.r)...)
			c.write(t, "idle.yaml", withSlices(internalLocal(everywhere("idle", 3)))...)
			c.write(t, "both.yaml", withSlices(externalLocal(internalLocal(everywhere("both", 4))), c.a, c.r)...)
			// What makes no difference on a Service without external frontends of its own.
			stale := externalLocal(service("stale", 5, everyProtocol(80)[:2]...))
			withIngress(stale, balancerIP(5)[ip4], balancerIP(5)[ip6]).Spec.Type = "ClusterIP"
			c.write(t, "stale.yaml", withSlices(stale, c.a, c.r)...)
			c.run(t, tt.flags...)
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				at := func(n int) netip.AddrPort { return netip.AddrPortFrom(clusterIP(n)[f], 80) }
				for _, from := range []*host{c.client, c.node, c.b, c.s} {
					c.served(t, from, network, at(1), tt.sees[from.Name()], "a")
					c.served(t, from, network, at(4), tt.sees[from.Name()], "a")
					c.served(t, from, network, at(5), tt.sees[from.Name()], "a", "r")
					c.vanishes(t, from, network, at(2))
					c.refused(t, from, network, at(3))
					for _, dst := range external(1, f) {
						c.served(t, from, network, dst, masqueraded, "a", "r")
					}
					for _, dst := range external(2, f) {
						c.served(t, from, network, dst, masqueraded, "r")
					}
					c.served(t, from, network, netip.AddrPortFrom(balancerIP(5)[f], 80), masqueraded, "a", "r")
				}
				for _, dst := range external(4, f) {
					c.served(t, c.client, network, dst, own, "a")
					c.served(t, c.node, network, dst, masqueraded, "a", "r")
				}
			})
		})
	}
}

// TestLocalConditions: the endpoints of the policies Cluster and Local are judged
// separately (A2.2, A2.3, A2.4, F11).
func TestLocalConditions(t *testing.T) {
	t.Parallel()
	var (
		ready       = discoveryv1.EndpointConditions{Ready: new(true)}
		notReady    = discoveryv1.EndpointConditions{Ready: new(false)}
		terminating = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
		gone        = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(true)}
	)
	cases := []struct {
		name           string
		a, b, r        discoveryv1.EndpointConditions
		cluster, local []string
	}{
		{"A2.3 the only one here terminates", terminating, notReady, ready, []string{"r"}, []string{"a"}},
		{"A2.3 one of two here terminates", terminating, ready, ready, []string{"b", "r"}, []string{"b"}},
		{"A2.3 all terminate", terminating, gone, terminating, []string{"a", "r"}, []string{"a"}},
		{"A2.3 ready here, terminating elsewhere", ready, gone, terminating, []string{"a"}, []string{"a"}},
		{"A2.4 none here serves", gone, notReady, ready, []string{"r"}, nil},
		{"A2.4 none here serves, those elsewhere terminate", gone, notReady, terminating, []string{"r"}, nil},
		{"A2.4 none serves anywhere", gone, notReady, gone, nil, nil},
	}
	c := newCluster(t)
	for i, tt := range cases {
		s := internalLocal(externalLocal(everywhere(fmt.Sprint("local-", i), 1+i)))
		all := []discoveryv1.EndpointConditions{tt.a, tt.b, tt.r}
		c.write(t, s.Name+".yaml", eachEndpoint(withSlices(s, c.a, c.b, c.r), func(i int, e *discoveryv1.Endpoint) {
			e.Conditions = all[i]
		})...)
		s = service(fmt.Sprint("cluster-", i), 101+i, everyProtocol(80)[:2]...)
		c.write(t, s.Name+".yaml", eachEndpoint(withSlices(s, c.a, c.b, c.r), func(i int, e *discoveryv1.Endpoint) {
			e.Conditions = all[i]
		})...)
	}
	c.run(t, "--cluster-cidr", clusterCIDR)
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				all := external(1+i, f)
				all["cluster IP"] = netip.AddrPortFrom(clusterIP(1 + i)[f], 80)
				for name, dst := range all {
					switch {
					case tt.cluster == nil:
						c.refused(t, c.client, network, dst)
						c.refused(t, c.s, network, dst)
					case tt.local == nil:
						c.silent(t, c.client, network, dst)
					default:
						c.served(t, c.client, network, dst, eitherSource, tt.local...)
					}
					if tt.cluster != nil && name != "cluster IP" {
						c.served(t, c.s, network, dst, own, tt.cluster...)
					}
				}
				if dst := netip.AddrPortFrom(clusterIP(101 + i)[f], 80); tt.cluster == nil {
					c.refused(t, c.client, network, dst)
				} else {
					c.served(t, c.client, network, dst, masqueraded, tt.cluster...)
				}
			})
		})
	}
}

// TestLocalHairpin: a pod reaches itself through a frontend under the policy Local
// (A3.11), also when the policy Cluster would lead it elsewhere.
func TestLocalHairpin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
		last  string // who answers where the only endpoint here terminates
	}{
		{"A3.11 local pods detected", []string{"--cluster-cidr", clusterCIDR}, "r"},
		{"A3.11 nobody is told from pods", nil, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.write(t, "one.yaml", withSlices(externalLocal(internalLocal(everywhere("one", 1))), c.a)...)
			last := withSlices(externalLocal(internalLocal(everywhere("last", 2))), c.a, c.r)
			c.write(t, "last.yaml", eachEndpoint(last, func(i int, e *discoveryv1.Endpoint) {
				e.Conditions = discoveryv1.EndpointConditions{Ready: new(i == 1), Serving: new(true), Terminating: new(i == 0)}
			})...)
			c.run(t, tt.flags...)
			eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
				for n := 1; n <= 2; n++ {
					c.served(t, c.a, network, netip.AddrPortFrom(clusterIP(n)[f], 80), masqueraded, "a")
					c.served(t, c.b, network, netip.AddrPortFrom(clusterIP(n)[f], 80), own, "a")
				}
				for _, dst := range external(1, f) {
					c.served(t, c.a, network, dst, masqueraded, "a")
					c.served(t, c.b, network, dst, own, "a")
				}
				for _, dst := range external(2, f) {
					sees := own
					if tt.last == "a" {
						sees = masqueraded
					}
					c.served(t, c.a, network, dst, sees, tt.last)
					c.served(t, c.b, network, dst, own, tt.last)
				}
			})
		})
	}
}

// TestPolicyFlips: policies change under traffic. The first Service under the
// policy Local gives the tables more rules, the last one takes them, and nobody
// notices: no table is replaced for it.
func TestPolicyFlips(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)[:2]...), 30080), c.a, c.b, c.r)...)
	flips := everywhere("flips", 2)
	c.write(t, "flips.yaml", withSlices(flips, c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	conns, answers := c.establish(t)
	for _, f := range families {
		for _, dst := range external(2, f) {
			for range 4 { // to endpoints here and elsewhere
				conn, err := c.client.Dial(t.Context(), "tcp", dst, netlab.Timeout(patience))
				c.Must(err)
				t.Cleanup(func() { conn.Close() })
				a, err := conn.Ask(t.Context())
				c.Must(err)
				conns, answers = append(conns, conn), append(answers, a)
			}
		}
	}
	stop := c.flow(t)
	for round := range 3 {
		externalLocal(flips)
		c.write(t, "flips.yaml", withSlices(flips, c.a, c.r)...)
		c.programmed(t)
		c.checkFlips(t, own, "a")
		flips.Spec.ExternalTrafficPolicy = "Cluster"
		c.write(t, "flips.yaml", withSlices(flips, c.a, c.r)...)
		c.programmed(t)
		c.checkFlips(t, masqueraded, "a", "r")
		for i, conn := range conns {
			a, err := conn.Ask(t.Context())
			if err != nil || a.Server != answers[i].Server || a.Source != answers[i].Source {
				t.Fatalf("round %d: established connection got %v, %v, was %v", round, a, err, answers[i])
			}
		}
		if n := c.proxy.count("table replaced"); n != 0 {
			t.Errorf("round %d: %d tables were replaced so far", round, n)
		}
	}
	t.Logf("%d new connections, %d established ones kept", stop(), len(conns))
}

// checkFlips checks what servers see of the client and of a pod on the way to the
// external frontends of Service 2, and who answers the client.
func (c *cluster) checkFlips(t *testing.T, sees seen, servers ...string) {
	t.Helper()
	for _, f := range families {
		for _, network := range networks[:2] {
			for _, dst := range external(2, f) {
				c.served(t, c.client, network, dst, sees, servers...)
				c.served(t, c.b, network, dst, sees, "a", "r")
				c.served(t, c.node, network, dst, masqueraded, "a", "r")
			}
		}
	}
}

// TestLocalRestart: a restart writes nothing, neither with Services under the
// policy Local nor after the last of them is gone.
func TestLocalRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	write := func(policy bool, pods ...*host) {
		one, two := everywhere("one", 1), service("two", 2, everyProtocol(80)[:2]...)
		if policy {
			externalLocal(one)
			internalLocal(two)
		}
		c.write(t, "one.yaml", withSlices(one, pods...)...)
		c.write(t, "two.yaml", withSlices(two, pods...)...)
		c.write(t, "away.yaml", withSlices(everywhere("away", 3), c.r)...)
		if policy {
			c.write(t, "away.yaml", withSlices(externalLocal(internalLocal(everywhere("away", 3))), c.r)...)
		}
	}
	check := func(sees seen, servers ...string) {
		t.Helper()
		for _, f := range families {
			for _, dst := range external(1, f) {
				c.served(t, c.client, "tcp", dst, sees, servers...)
			}
			c.served(t, c.client, "udp", netip.AddrPortFrom(clusterIP(2)[f], 80), masqueraded, servers...)
		}
	}
	flags := []string{"--cluster-cidr", clusterCIDR}
	write(true, c.a, c.r, c.b)
	c.run(t, flags...)
	// The order of slots is now that of history, not of addresses.
	for _, pods := range [][]*host{{c.b, c.r}, {c.r}, {c.r, c.b}, {c.r, c.s, c.b, c.a}} {
		write(true, pods...)
		c.programmed(t)
	}
	c.restartsQuietly(t, flags...)
	check(own, "a", "b")
	write(false, c.a, c.b)
	c.programmed(t)
	c.restartsQuietly(t, flags...)
	check(masqueraded, "a", "b")
	// Edited while nobody watched.
	c.proxy.kill()
	write(true, c.b, c.r)
	c.run(t, flags...)
	check(own, "b")
	c.proxy.kill()
	write(false, c.b, c.r)
	c.run(t, flags...)
	check(masqueraded, "b", "r")
}
