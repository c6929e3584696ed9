// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// family is an IP family. It indexes the addresses of hosts.
type family int

const (
	ip4 family = iota
	ip6
)

var (
	families = []family{ip4, ip6}
	networks = []string{"tcp", "udp", "sctp"}
)

func (f family) String() string { return [...]string{"IPv4", "IPv6"}[f] }

// both makes an address of each family from formats and numbers.
func both(four, six string, n ...any) (addrs [2]netip.Addr) {
	for f, format := range []string{four, six} {
		addrs[f] = netip.MustParseAddr(fmt.Sprintf(format, n...))
	}
	return addrs
}

// Addresses of Services, by number. None of them is anybody's own.
func clusterIP(n int) [2]netip.Addr  { return both("10.96.0.%d", "fd00:10:96::%d", n) }
func balancerIP(n int) [2]netip.Addr { return both("203.0.113.%d", "2001:db8:203::%d", n) }
func externalIP(n int) [2]netip.Addr { return both("198.51.100.%d", "2001:db8:198::%d", n) }

// clusterCIDR are the addresses of pods, as --cluster-cidr wants them.
const clusterCIDR = "10.128.0.0/16,fd00:10:128::/48"

// Addresses of the node.
var (
	outside   = both("192.168.1.%d", "fd00:1::%d", 1)               // towards the client; the primary ones
	inside    = both("192.168.2.%d", "fd00:2::%d", 1)               // towards the second node
	secondary = both("172.16.0.%d", "fd00:16::%d", 1)               // on an interface that leads nowhere
	gateway   = both("10.128.0.%d", "fd00:10:128::%d", 1)           // towards the pods on the node
	peer      = both("192.168.2.%d", "fd00:2::%d", 2)               // of the second node
	gateway1  = both("10.128.1.%d", "fd00:10:128:1::%d", 1)         // of its pods
	podCIDR1  = []string{"10.128.1.0/24", "fd00:10:128:1::/64"}     // of its pods
	loopbacks = [2]string{ip4: "127.0.0.1", ip6: "::1"}             // of everybody
	manyCIDR  = []string{"10.128.0.128/25", "fd00:10:128::1:0/112"} // addresses that pod a has besides its own
)

// host is a namespace that asks or answers.
type host struct {
	*netlab.Namespace
	addrs [2]netip.Addr // its own
	// via is the node's address on the way to the host: what it sees of
	// a connection that is masqueraded.
	via [2]netip.Addr
	// bound says that it asks from its own addresses, of several in its namespace.
	bound bool
}

// at returns a port of the host in a family.
func (h *host) at(f family, port uint16) netip.AddrPort { return netip.AddrPortFrom(h.addrs[f], port) }

// targetPort is where the servers of pods listen.
const targetPort = 8080

// cluster is the laboratory: everything that a Service can be reached from and
// everything that it can lead to.
//
//	client ---- node (kube-nft) ---- node1
//	             |  |                 |  |
//	             a  b                 r  s     pods
//
// The node is everybody's way to Services: the client and the pods of node1,
// which has no kube-nft, are routed through it.
type cluster struct {
	*netlab.T
	client, node, node1, a, b, r, s *host

	manifests string // directory
	barrier   int    // how often programmed was called
	proxy     *process
}

// newCluster builds a cluster in which every pod serves on targetPort under its
// own name, over all networks and both families. kube-nft does not run yet.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	l := netlab.NewT(t)
	c := &cluster{T: l, manifests: manifestDir(t)}
	c.client = &host{Namespace: l.Namespace("client"), addrs: both("192.168.1.%d", "fd00:1::%d", 2), via: outside}
	c.node = &host{Namespace: l.Namespace("node"), addrs: outside, via: outside}
	c.node1 = &host{Namespace: l.Namespace("node1"), addrs: peer, via: inside}
	for _, n := range []*host{c.node, c.node1} {
		l.Must(
			n.Sysctl("net.ipv4.conf.all.send_redirects", "0"),
			n.Sysctl("net.ipv4.conf.default.send_redirects", "0"),
			n.Forward(),
		)
	}
	l.Must(
		netlab.Link(c.node.Namespace, "out", c.client.Namespace, "eth0"),
		netlab.Link(c.node.Namespace, "in", c.node1.Namespace, "eth0"),
		c.node.Addr("out", wide(outside)...),
		c.node.Addr("in", wide(inside)...),
		c.node.Addr("lo", narrow(secondary)...),
		c.client.Addr("eth0", wide(c.client.addrs)...),
		c.client.DefaultRoute(outside[:]...),
		c.node.DefaultRoute(c.client.addrs[:]...),
		c.node1.Addr("eth0", wide(peer)...),
		c.node1.DefaultRoute(inside[:]...),
	)
	for f, cidr := range podCIDR1 {
		everything := netip.PrefixFrom(inside[f], 0).Masked()
		l.Must(
			c.node.Route(netip.MustParsePrefix(cidr), peer[f]),
			c.node1.IP(fmt.Sprintf("route add %s via %s table 100", everything, inside[f])),
		)
	}
	c.a = c.pod("a", c.node, gateway, gateway, both("10.128.0.%d", "fd00:10:128::%d", 2))
	c.b = c.pod("b", c.node, gateway, gateway, both("10.128.0.%d", "fd00:10:128::%d", 3))
	c.r = c.pod("r", c.node1, gateway1, inside, both("10.128.1.%d", "fd00:10:128:1::%d", 2))
	c.s = c.pod("s", c.node1, gateway1, inside, both("10.128.1.%d", "fd00:10:128:1::%d", 3))
	c.meet()
	return c
}

// wide returns addresses with the prefix length of a network, narrow with that
// of a host.
func wide(addrs [2]netip.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(addrs[ip4], 24), netip.PrefixFrom(addrs[ip6], 64)}
}

func narrow(addrs [2]netip.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(addrs[ip4], 32), netip.PrefixFrom(addrs[ip6], 128)}
}

// pod makes a pod on a node, at the end of a routed veth pair, and its servers.
func (c *cluster) pod(name string, node *host, gateway, via, addrs [2]netip.Addr) *host {
	p, veth := &host{Namespace: c.Namespace(name), addrs: addrs, via: via}, "pod-"+name
	c.Must(
		netlab.Link(node.Namespace, veth, p.Namespace, "eth0"),
		node.Addr(veth, narrow(gateway)...),
		p.Addr("eth0", narrow(addrs)...),
	)
	for f := range families {
		c.Must(
			node.IP(fmt.Sprintf("route add %s dev %s", addrs[f], veth)),
			p.IP(fmt.Sprintf("route add %s dev eth0", gateway[f])),
		)
	}
	c.Must(p.DefaultRoute(gateway[:]...))
	if node == c.node1 {
		// Also what goes to the node's other pods: Services are the node's.
		c.Run(node.Namespace, "ip", "-4", "rule", "add", "iif", veth, "lookup", "100")
		c.Run(node.Namespace, "ip", "-6", "rule", "add", "iif", veth, "lookup", "100")
	}
	for f := range families {
		for _, network := range networks {
			c.Serve(p.Namespace, network, p.at(family(f), targetPort), name)
		}
	}
	return p
}

// meet lets all neighbours find each other, so that no test waits for that.
func (c *cluster) meet() {
	for _, from := range []*host{c.client, c.node, c.a, c.b, c.r, c.s} {
		for _, to := range []*host{c.a, c.b, c.r, c.s} {
			for f := range families {
				c.Eventually(10*time.Second, func() error {
					_, err := from.ask("tcp", to.at(family(f), targetPort), 100*time.Millisecond)
					return err
				})
			}
		}
	}
}

// run starts kube-nft on the node as a cluster would, with more flags, and waits
// until it has programmed what the manifests say.
func (c *cluster) run(t *testing.T, flags ...string) {
	t.Helper()
	c.start(t, flags...)
	c.programmed(t)
}

func (c *cluster) start(t *testing.T, flags ...string) {
	t.Helper()
	c.proxy = startProxy(t, c.node.Namespace, c.manifests, flags...)
}

// programmed waits until everything that the manifests say now is in the kernel.
// It writes a Service with a port that there never was and asks there until it
// is answered, twice: what the first answer overtook, the second did not.
func (c *cluster) programmed(t *testing.T) {
	t.Helper()
	for range 2 {
		c.barrier++
		port := uint16(c.barrier)
		s := service("barrier", 254, servicePort("", "TCP", port))
		s.Namespace = "kube-nft-e2e"
		c.write(t, "zz-barrier.yaml", s, slice(s, ip4, c.a), slice(s, ip6, c.a))
		for f := range families {
			dst := netip.AddrPortFrom(clusterIP(254)[f], port)
			err := netlab.Poll(10*time.Second, func() error {
				if c.proxy.ended() {
					return nil
				}
				_, err := c.client.ask("tcp", dst, 100*time.Millisecond)
				return err
			})
			if c.proxy.ended() {
				err = errors.New("kube-nft ended")
			}
			if err != nil {
				t.Fatalf("manifests are not programmed: %v", err)
			}
		}
	}
}
