// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// site is a node with three pods, its control plane and a client outside:
//
//	control plane --- node --- pod-0, pod-1, pod-2
//	192.0.2.2          |       10.244.0.2, 10.244.1.2, 10.244.2.2
//	2001:db8::2        |       fd00:10:244:0::2, …
//	                   `------ client 198.51.100.2, 2001:db8:1::2
//
// The control plane is everybody's last resort, and forwards nothing: a packet to
// a ClusterIP that the node does not translate is answered "unreachable", at once.
type site struct {
	*netlab.T
	t                     *testing.T
	control, node, client *netlab.Namespace
	pods                  [3]*netlab.Namespace
	api                   *cluster.Cluster
	auditLog              string
}

const (
	nodeName    = "node-0"
	clusterCIDR = "10.244.0.0/16,fd00:10:244::/48"
	soon        = 15 * time.Second // for what should take milliseconds, on a busy machine
	// patience is for kube-nft to come back after an outage: it asks again after up
	// to 20 s (source.apiBackoff), and does so thrice when the server that has just
	// started knows neither its permissions nor its place in history.
	patience = 65 * time.Second
)

// user is who kube-nft is.
var user = cluster.ServiceAccount("kube-system", "kube-nft")

var (
	apiAddr = netip.MustParseAddr("192.0.2.2")
	// nodeAddrs are the node's in the Node object, otherAddrs those which it has
	// besides on the same interface.
	nodeAddrs  = []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:1::1")}
	otherAddrs = []netip.Addr{netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8:1::10")}
)

// podAddr is the address of a pod, v6 or not.
func podAddr(i int, v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00:10:244:%d::2", i))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.244.%d.2", i))
}

// newSite makes a site whose API is ready and in which nothing else runs. The user
// has the permissions that deploy/ is to give it; see allow.
func newSite(t *testing.T) *site {
	t.Helper()
	s := newBareSite(t)
	s.allow("services", "endpointslices", "servicecidrs", "events")
	return s
}

// newBareSite is newSite without any permission for the user.
func newBareSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: netlab.NewT(t), t: t}
	s.connect()
	policy := s.writeAuditPolicy()
	s.auditLog = filepath.Join(t.TempDir(), "audit.log")
	s.api = cluster.Run(t, cluster.Config{
		Listen:    apiAddr,
		Advertise: apiAddr,
		Users:     []cluster.User{user},
		Args:      []string{"--audit-policy-file=" + policy, "--audit-log-path=" + s.auditLog},
		Command:   cluster.InNamespace(s.control.Path()),
		Dial:      s.control.DialContext,
	})
	return s
}

// connect makes the namespaces and everything between them.
func (s *site) connect() {
	s.t.Helper()
	s.control, s.node, s.client = s.Namespace("control-plane"), s.Namespace(nodeName), s.Namespace("client")
	s.Must(
		netlab.Link(s.control, "eth0", s.node, "api"),
		s.control.Addr("eth0", prefixes("192.0.2.2/24", "2001:db8::2/64")...),
		s.node.Addr("api", prefixes("192.0.2.1/24", "2001:db8::1/64")...),
		netlab.Link(s.client, "eth0", s.node, "ext"),
		s.client.Addr("eth0", prefixes("198.51.100.2/24", "2001:db8:1::2/64")...),
		s.node.Addr("ext", prefixes("198.51.100.1/24", "198.51.100.10/24", "2001:db8:1::1/64", "2001:db8:1::10/64")...),
		s.client.DefaultRoute(nodeAddrs...),
		s.node.DefaultRoute(apiAddr, netip.MustParseAddr("2001:db8::2")),
		s.node.Forward(),
		s.control.DefaultRoute(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")),
		s.control.Forward(),
		s.control.NFT(`table inet dead-end {
			chain forward { type filter hook forward priority 0; reject with icmpx type host-unreachable; }
		}`),
	)
	for i := range s.pods {
		pod, port := s.Namespace(fmt.Sprintf("pod-%d", i)), fmt.Sprintf("p%d", i)
		v4, v6 := podAddr(i, false), podAddr(i, true)
		s.Must(
			netlab.Link(pod, "eth0", s.node, port),
			pod.Addr("eth0", netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)),
			s.node.Addr(port, netip.PrefixFrom(v4.Prev(), 24), netip.PrefixFrom(v6.Prev(), 64)),
			pod.DefaultRoute(v4.Prev(), v6.Prev()),
		)
		s.pods[i] = pod
	}
}

// serve starts servers in pod-1 and pod-2, in both families: TCP and UDP on port
// 8080. They answer with the pod's name.
func (s *site) serve() {
	s.t.Helper()
	for i, pod := range s.pods[1:] {
		for _, v6 := range []bool{false, true} {
			for _, network := range []string{"tcp", "udp"} {
				s.Serve(pod, network, netip.AddrPortFrom(podAddr(i+1, v6), 8080), pod.Name())
			}
		}
	}
}

// answers waits until exactly these servers answer; with none, until nobody does.
func (s *site) answers(from *netlab.Namespace, network string, to netip.AddrPort, servers ...string) {
	s.t.Helper()
	s.Answers(soon, from, network, to, servers...)
}

// answersWithin is answers for changes that take their time.
func (s *site) answersWithin(within time.Duration, from *netlab.Namespace, network string, to netip.AddrPort, servers ...string) {
	s.t.Helper()
	s.Answers(within, from, network, to, servers...)
}

// traffic asks for as long as the test wants, every 10 ms, each time over a new
// connection. What it returns ends it and tells the outcome.
func (s *site) traffic(from *netlab.Namespace, network string, to netip.AddrPort) (stop func() netlab.Tally) {
	ctx, cancel := context.WithCancel(s.t.Context())
	result := make(chan netlab.Tally, 1)
	go func() {
		result <- netlab.Many(ctx, 1<<30, 1, func(int) (netlab.Answer, error) {
			time.Sleep(10 * time.Millisecond)
			return from.Ask(context.Background(), network, to)
		})
	}()
	return func() netlab.Tally {
		cancel()
		return <-result
	}
}

// stall drops every packet between the node and the API, so that neither learns
// of it, until mend. The table is nobody's that kube-nft knows of.
func (s *site) stall() {
	s.t.Helper()
	s.Must(s.node.NFT(`table ip outage {
		chain output { type filter hook output priority 0; ip daddr 192.0.2.2 drop; }
		chain input { type filter hook input priority 0; ip saddr 192.0.2.2 drop; }
	}`))
}

// cut breaks every connection between kube-nft and the API, and refuses new ones,
// until mend.
func (s *site) cut(agent *program) {
	s.t.Helper()
	s.Must(s.node.NFT(`table ip outage {
		chain output { type filter hook output priority 0; ip daddr 192.0.2.2 tcp flags & (syn | ack) == syn reject with tcp reset; }
	}`))
	s.Run(s.node, "ss", "-K", "dst", apiAddr.String())
	agent.await(soon, unanswered)
}

func (s *site) mend() {
	s.t.Helper()
	s.Must(s.node.NFT("delete table ip outage"))
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}
