// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// site is a cluster on one network, and a client outside of the cluster:
//
//	control plane     node-0      …      node-4      client        world
//	192.0.2.2       192.0.2.10         192.0.2.14  192.0.2.100   192.0.2.1
//	2001:db8::2     2001:db8::10       2001:db8::14 …
//	     └──────────────┴──────── LAN ──────┴───────────┴─────────────┘
//
// Pods are behind their node, which routes to those of other nodes; see pod. The
// world is everybody's last resort, and forwards nothing: a packet to a ClusterIP that
// a node does not translate is answered "unreachable", at once. The client routes
// what is neither on the LAN nor a pod's to the node that it is told to; see via.
type site struct {
	*netlab.T
	t                    *testing.T
	lan, control, client *netlab.Namespace
	nodes                []*node
	api                  *cluster.Cluster
	auditLog             string
	kubeconfig           string          // kube-nft's
	pods                 map[string]*pod // by name
}

// node is a machine of the cluster.
type node struct {
	*netlab.Namespace
	index int
	addrs []netip.Addr // IPv4 first, as everywhere
	pods  int          // how many it has had
}

const (
	clusterCIDR = "10.244.0.0/16,fd00:10:244::/48"
	soon        = 20 * time.Second // for what should take milliseconds, on a busy machine
	// patience is for kube-nft to come back after an outage: it asks again after up
	// to 20 s (source.apiBackoff), and may have to do so thrice.
	patience = 65 * time.Second
	// manifests are what operators apply.
	manifests = "../../deploy/kustomize/base"
)

var (
	worldAddrs  = addrs("192.0.2.1", "2001:db8::1")
	apiAddrs    = addrs("192.0.2.2", "2001:db8::2")
	clientAddrs = addrs("192.0.2.100", "2001:db8::100")
	families    = []string{"IPv4", "IPv6"}
)

// account is who kube-nft is.
var account = cluster.ServiceAccount("kube-system", "kube-nft")

// controllers are those that a proxy depends on; serviceaccount-token needs none: the
// API server itself issues tokens.
var controllers = []string{"endpointslice-controller", "endpointslice-mirroring-controller", "serviceaccount-controller"}

// newBareSite makes the network of a site with as many nodes, and its API, in which
// there is nothing.
func newBareSite(t *testing.T, nodes int) *site {
	t.Helper()
	s := &site{T: netlab.NewT(t), t: t, pods: make(map[string]*pod)}
	s.lan = s.Namespace("lan")
	s.Must(s.lan.Bridge("lan"))
	world := s.join("world", worldAddrs)
	s.Must(
		world.Forward(),
		world.Sysctl("net.ipv4.conf.all.send_redirects", "0"),
		world.Sysctl("net.ipv4.conf.eth0.send_redirects", "0"),
		// Everybody is told that nothing is behind it. Without a route the kernel would do
		// that, but for IPv4 once a second only (ip_error in net/ipv4/route.c).
		world.IP("route add default dev eth0", "route add ::/0 dev eth0"),
		world.NFT(`table inet dead-end {
			chain forward { type filter hook forward priority 0; reject with icmpx type host-unreachable; }
		}`))
	s.control, s.client = s.join("control-plane", apiAddrs), s.join("client", clientAddrs)
	for i := range nodes {
		s.addNode(i)
	}
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	s.auditLog = filepath.Join(t.TempDir(), "audit.log")
	s.Must(os.WriteFile(policy, cluster.AuditPolicy(account.Name, kubeProxyAccount.Name), 0o600))
	s.api = cluster.Run(t, cluster.Config{
		Listen:      apiAddrs[0],
		Advertise:   apiAddrs[0],
		Controllers: controllers,
		Args:        []string{"--audit-policy-file=" + policy, "--audit-log-path=" + s.auditLog},
		Command:     cluster.InNamespace(s.control.Path()),
		Dial:        s.control.DialContext,
	})
	return s
}

// newSite is newReadySite with Node objects.
func newSite(t *testing.T, nodes int) *site {
	t.Helper()
	s := newReadySite(t, nodes)
	for _, n := range s.nodes {
		s.createNode(n, nil)
	}
	return s
}

// newReadySite is newBareSite with what an operator applies for kube-nft, but for the
// DaemonSet.
func newReadySite(t *testing.T, nodes int) *site {
	t.Helper()
	s := newBareSite(t, nodes)
	for _, file := range []string{"serviceaccount.yaml", "rbac.yaml"} {
		text, err := os.ReadFile(filepath.Join(manifests, file))
		s.Must(err)
		s.kubectl(string(text), "apply", "--namespace=kube-system", "-f", "-")
	}
	s.takeToken()
	return s
}

// takeToken asks for a token of kube-nft's ServiceAccount, as kubelet does.
func (s *site) takeToken() {
	s.t.Helper()
	var err error
	s.kubeconfig, err = s.api.AccountKubeconfig(s.t.Context(), "kube-system", "kube-nft")
	s.Must(err)
}

// join makes a namespace on the LAN whose default route is the world.
func (s *site) join(name string, own []netip.Addr) *netlab.Namespace {
	s.t.Helper()
	n := s.Namespace(name)
	port := name
	s.Must(
		netlab.Link(n, "eth0", s.lan, port),
		s.lan.IP("link set "+port+" master lan"),
		n.Addr("eth0", netip.PrefixFrom(own[0], 24), netip.PrefixFrom(own[1], 64)),
	)
	if name != "world" {
		s.Must(n.DefaultRoute(worldAddrs...))
	}
	return n
}

// addNode adds a machine, and routes for the others to its pods. There is no Node
// object of it yet.
func (s *site) addNode(index int) {
	s.t.Helper()
	n := &node{index: index, addrs: addrs(fmt.Sprintf("192.0.2.%d", 10+index), fmt.Sprintf("2001:db8::%d", 10+index))}
	n.Namespace = s.join(fmt.Sprintf("node-%d", index), n.addrs)
	s.Must(
		n.Forward(),
		// Pods of one node may be behind each other's; nobody is told a shorter way.
		n.Sysctl("net.ipv4.conf.all.send_redirects", "0"),
		n.Sysctl("net.ipv4.conf.eth0.send_redirects", "0"),
	)
	for f, cidr := range n.podCIDRs() {
		for _, other := range s.nodes {
			s.Must(other.Route(cidr, n.addrs[f]), n.Route(other.podCIDRs()[f], other.addrs[f]))
		}
		s.Must(s.client.Route(cidr, n.addrs[f]))
	}
	s.nodes = append(s.nodes, n)
}

// podCIDRs are the addresses of the node's pods.
func (n *node) podCIDRs() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", n.index)),
		netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", n.index)),
	}
}

// via makes a node the client's way to an address, as a load balancer would be.
func (s *site) via(n *node, to netip.Addr) {
	s.t.Helper()
	f := 0
	if to.Is6() {
		f = 1
	}
	s.Must(s.client.Route(netip.PrefixFrom(to, to.BitLen()), n.addrs[f]))
}

// do sends a request as the administrator.
func (s *site) do(method, path string, in, out any) {
	s.t.Helper()
	s.Must(s.api.Do(s.t.Context(), method, path, in, out))
}

// patch merges into an object.
func (s *site) patch(path string, change map[string]any) {
	s.t.Helper()
	s.do(http.MethodPatch, path, change, nil)
}

// kubectl runs it as the administrator, with a text as its standard input.
func (s *site) kubectl(input string, args ...string) string {
	s.t.Helper()
	out, err := s.api.Kubectl(s.t.Context(), input, args...)
	s.Must(err)
	return out
}

// requests are those of kube-nft so far.
func (s *site) requests() []cluster.Request {
	s.t.Helper()
	all, err := cluster.Requests(s.auditLog)
	s.Must(err)
	return all
}

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// wantStatus returns an error unless err is an answer with this HTTP status.
func wantStatus(err error, status int) error {
	var got *cluster.StatusError
	if errors.As(err, &got) && got.Code == status {
		return nil
	}
	return fmt.Errorf("want an answer with status %d: %w", status, err)
}
