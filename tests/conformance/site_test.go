// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// site is a node with everybody around it:
//
//	control plane --- node-0 --- a, b, f          pods on this node
//	                   | | |
//	                   | | `---- fabric --- node-1 and c, d, e, its pods
//	                   | `------ client           outside
//	                   `-------- world            everybody's last resort
//
// Every packet between two of them passes node-0, whatever they are, so that an answer
// meets who translated the question. e is no endpoint: on its own node it would meet
// the proxy there, should it reach itself. f is an endpoint of one Service only, which
// alone it asks: what lets it reach itself is there for no other. The world forwards
// nothing and says so: a packet to a frontend that the node neither translates nor drops
// is answered "host unreachable". Only the address towards the control plane is another
// one in each site.
type site struct {
	*netlab.T
	name    string // of the program that serves the node
	node    *netlab.Namespace
	clients map[string]*netlab.Namespace
	who     map[netip.Addr]string // the owner of each address
}

// clientNames are those who ask. Pods are endpoints as well, at times of what they
// ask for.
var clientNames = []string{"client", nodeName, peerName, "a", "b", "e", "f"}

const (
	nodeName    = "node-0"
	peerName    = "node-1"
	clusterCIDR = "10.244.0.0/16,fd00:10:244::/48"
)

// What has addresses in both families, IPv4 first.
var (
	// nodeAddrs are the node's in the Node object, otherAddrs those which it has
	// besides on the same interface.
	nodeAddrs  = addrs("198.51.100.1", "2001:db8:1::1")
	otherAddrs = addrs("198.51.100.10", "2001:db8:1::10")
	peerAddrs  = addrs("172.16.0.2", "fd00:172:16::2")
	localhost  = addrs("127.0.0.1", "::1")
)

// podNames are the pods; a, b and f are on this node.
var podNames = []string{"a", "b", "c", "d", "e", "f"}

func onThisNode(pod string) bool { return pod == "a" || pod == "b" || pod == "f" }

// podAddrs are the addresses of pod i.
func podAddrs(i int) []netip.Addr {
	return addrs(fmt.Sprintf("10.244.%d.2", i), fmt.Sprintf("fd00:10:244:%d::2", i))
}

// Addresses of who only forwards, or does not.
var (
	worldAddrs  = addrs("192.0.3.2", "2001:db8:3::2")
	fabricAddrs = addrs("192.0.4.2", "2001:db8:4::2")
)

// newSite makes the namespaces of a site and what is between them. number tells one
// site from the other where the control plane sees both.
func newSite(t *testing.T, name string, number int, control *netlab.Namespace) *site {
	t.Helper()
	s := &site{T: netlab.NewT(t), name: name, who: make(map[netip.Addr]string)}
	s.node = s.Namespace(nodeName)
	apiSide := netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + number)})
	s.who[apiSide] = nodeName + " next to the control plane"
	s.Must(
		s.node.Forward(),
		s.node.Sysctl("net.ipv4.conf.all.send_redirects", "0"), // between c and d
		s.node.Sysctl("net.ipv4.conf.default.send_redirects", "0"),
		netlab.Link(s.node, "api", control, fmt.Sprintf("site%d", number)),
		s.node.IP(fmt.Sprintf("addr add %s/24 dev api", apiSide)),
		control.IP(fmt.Sprintf("link set site%d master sites", number)),
	)
	s.addWorld()
	client := s.connect("client", addrs("198.51.100.2", "2001:db8:1::2"))
	s.Must(s.node.Addr("client", narrow(otherAddrs)...))
	for _, a := range otherAddrs {
		s.who[a] = nodeName + " at another address"
	}
	fabric := s.addFabric()
	peer := s.connectVia(fabric, peerName, peerAddrs)
	pods := make([]*netlab.Namespace, len(podNames))
	for i, name := range podNames {
		if onThisNode(name) {
			pods[i] = s.connect("pod-"+name, podAddrs(i))
		} else {
			pods[i] = s.connectVia(fabric, "pod-"+name, podAddrs(i))
		}
	}
	s.clients = map[string]*netlab.Namespace{
		"client": client, nodeName: s.node, peerName: peer, "a": pods[0], "b": pods[1], "e": pods[4], "f": pods[5],
	}
	s.serve(peer, pods)
	return s
}

// addWorld adds the node's default route.
func (s *site) addWorld() {
	world := s.connect("world", worldAddrs)
	s.Must(
		s.node.DefaultRoute(worldAddrs...),
		world.Forward(),
		world.NFT(`table inet dead-end {
			chain forward { type filter hook forward priority 0; reject with icmpx type host-unreachable; }
		}`))
}

// addFabric adds a router that sends to the node what comes from elsewhere.
func (s *site) addFabric() *netlab.Namespace {
	fabric := s.connect("fabric", fabricAddrs)
	s.Must(fabric.Forward())
	for _, a := range fabricAddrs {
		s.Must(fabric.IP(fmt.Sprintf("route add default via %s table 100", a.Prev())))
	}
	return fabric
}

// connect links a new namespace to the node, with a route through it to everybody.
func (s *site) connect(name string, own []netip.Addr) *netlab.Namespace {
	n := s.Namespace(name)
	s.link(s.node, n, name, own)
	for _, a := range own {
		s.who[a.Prev()] = nodeName + " next to " + name
	}
	return n
}

// connectVia links a new namespace to the fabric.
func (s *site) connectVia(fabric *netlab.Namespace, name string, own []netip.Addr) *netlab.Namespace {
	n := s.Namespace(name)
	s.link(fabric, n, name, own)
	for _, family := range []string{"-4", "-6"} {
		s.Run(fabric, "ip", family, "rule", "add", "iif", name, "lookup", "100")
	}
	for f, a := range own {
		s.Must(s.node.Route(subnet(a), fabricAddrs[f]))
	}
	return n
}

// link links two namespaces, the first of which is the gateway of the second and has
// the address before each of the second's.
func (s *site) link(gateway, n *netlab.Namespace, name string, own []netip.Addr) {
	s.Must(netlab.Link(gateway, name, n, "eth0"))
	for _, a := range own {
		bits := subnet(a).Bits()
		s.Must(n.Addr("eth0", netip.PrefixFrom(a, bits)),
			gateway.Addr(name, netip.PrefixFrom(a.Prev(), bits)),
			n.DefaultRoute(a.Prev()))
		s.who[a] = name
	}
}

// serve starts the servers, each named after its host and port, on two ports of every
// pod and, for those that have the host's network, of both nodes.
func (s *site) serve(peer *netlab.Namespace, pods []*netlab.Namespace) {
	start := func(n *netlab.Namespace, name string, own []netip.Addr, networks ...string) {
		for _, addr := range own {
			for _, network := range networks {
				for _, port := range []uint16{8080, 9090} {
					s.Serve(n, network, netip.AddrPortFrom(addr, port), fmt.Sprintf("%s:%d", name, port))
				}
			}
		}
	}
	for i, pod := range pods {
		start(pod, podNames[i], podAddrs(i), "tcp", "udp")
		for _, addr := range podAddrs(i) { // SCTP answers on any port
			s.Serve(pod, "sctp", netip.AddrPortFrom(addr, 8080), podNames[i])
		}
	}
	start(s.node, "host-0", nodeAddrs, "tcp", "udp")
	start(peer, "host-1", peerAddrs, "tcp", "udp")
}

// forgetFlows empties the connection tracking of the node.
func (s *site) forgetFlows() error {
	return s.node.FlushConntrack()
}

// newControl makes the control plane's namespace, to which sites are linked.
func newControl(lab *netlab.T) (*netlab.Namespace, error) {
	n, err := lab.Lab.Namespace("control-plane")
	if err != nil {
		return nil, err
	}
	return n, errors.Join(
		n.Bridge("sites"),
		n.Addr("sites", netip.PrefixFrom(apiAddr, 24)))
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// narrow returns prefixes of one address each.
func narrow(all []netip.Addr) (prefixes []netip.Prefix) {
	for _, a := range all {
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	return prefixes
}

// subnet is the network of a link on which an address is.
func subnet(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(a, bits).Masked()
}
