// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/faults/inject"
	"github.com/kube-nft/kube-nft/tests/faults/wire"
	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// site is a node with pods and everybody who has to do with it:
//
//	control plane --- node --- pod-0, pod-1, pod-2
//	                   `------ client
//
// kube-nft runs on the node; objects is where its Services come from.
type site struct {
	*netlab.T
	t                     *testing.T
	control, node, client *netlab.Namespace
	pods                  [3]*netlab.Namespace
	objects               objects
	proxy                 *wire.Proxy // of a site with an API server
	agent                 *process.Process
	injector              *inject.Injector // of the agent, if it was started with one
	flags                 []string
	flows                 [2]*netlab.Conn // of UDP, to the Service that changes
}

const (
	nodeName    = "node-0"
	clusterCIDR = "10.244.0.0/16,fd00:10:244::/48"
	// soon is for what should take milliseconds, on a busy machine.
	soon = 30 * time.Second
)

// Addresses in both families, IPv4 first.
var (
	families    = []int{0, 1}
	controlAddr = pair("192.0.2.2", "2001:db8::2")
	nodeAddr    = pair("198.51.100.1", "2001:db8:1::1")
	clientAddr  = pair("198.51.100.2", "2001:db8:1::2")
)

func pair(v4, v6 string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
}

// podAddr is where pod i is; pods that nobody has made have addresses, too.
func podAddr(i int) [2]netip.Addr {
	return pair(fmt.Sprintf("10.244.%d.%d", i>>8, i&0xff), fmt.Sprintf("fd00:10:244::%x", i))
}

// realPod is the number of the pod with a server behind it.
func realPod(i int) int { return 2 + 4*i }

// newSite makes a site whose objects are manifests: its node, the Services that do not
// change, and others.
func newSite(t *testing.T, others ...runtime.Object) *site {
	t.Helper()
	s := &site{T: netlab.NewT(t), t: t}
	s.connect()
	m := newManifests(t)
	s.objects, s.flags = m, []string{"--manifests", m.dir}
	s.objects.put(t, slices.Concat([]runtime.Object{nodeObject()}, steady.objects(), sticky.objects(), others)...)
	return s
}

func wide(a [2]netip.Addr) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(a[0], 24), netip.PrefixFrom(a[1], 64)}
}

// connect makes the namespaces, everything between them, and the servers.
func (s *site) connect() {
	s.t.Helper()
	s.control, s.node, s.client = s.Namespace("control-plane"), s.Namespace(nodeName), s.Namespace("client")
	s.Must(
		netlab.Link(s.control, "eth0", s.node, "api"),
		s.control.Addr("eth0", wide(controlAddr)...),
		s.node.Addr("api", wide([2]netip.Addr{controlAddr[0].Prev(), controlAddr[1].Prev()})...),
		netlab.Link(s.client, "eth0", s.node, "out"),
		s.client.Addr("eth0", wide(clientAddr)...),
		s.node.Addr("out", wide(nodeAddr)...),
		s.client.DefaultRoute(nodeAddr[:]...),
		s.control.DefaultRoute(controlAddr[0].Prev(), controlAddr[1].Prev()),
		s.node.DefaultRoute(clientAddr[:]...),
		s.node.Forward(),
	)
	for i := range s.pods {
		pod, port, addr := s.Namespace(fmt.Sprintf("pod-%d", i)), fmt.Sprintf("p%d", i), podAddr(realPod(i))
		gateway := [2]netip.Addr{addr[0].Prev(), addr[1].Prev()}
		s.Must(
			netlab.Link(pod, "eth0", s.node, port),
			pod.Addr("eth0", netip.PrefixFrom(addr[0], 30), netip.PrefixFrom(addr[1], 126)),
			s.node.Addr(port, netip.PrefixFrom(gateway[0], 30), netip.PrefixFrom(gateway[1], 126)),
			pod.DefaultRoute(gateway[:]...),
		)
		for _, a := range addr {
			for _, network := range []string{"tcp", "udp"} {
				s.Serve(pod, network, netip.AddrPortFrom(a, targetPort), pod.Name())
			}
		}
		s.pods[i] = pod
	}
}

// arguments are those of kube-nft on the node.
func (s *site) arguments(more ...string) []string {
	args := append([]string{"run", "--hostname-override", nodeName, "--cluster-cidr", clusterCIDR,
		"--conntrack-max-per-core", "0", // that is the machine's
		"--logging-format", "json", "--v", "2"}, s.flags...)
	return append(args, more...)
}

// start starts kube-nft and does not wait for it.
func (s *site) start(more ...string) {
	s.t.Helper()
	s.agent, s.injector = process.Start(s.t, s.node, process.KubeNFT(), s.arguments(more...)...), nil
}

// startInjected starts kube-nft so that its talk with the kernel can go wrong.
func (s *site) startInjected(rule inject.Rule, more ...string) {
	s.t.Helper()
	s.agent, s.injector = inject.Start(s.t, s.node, rule, process.KubeNFT(), s.arguments(more...)...)
}

// ready waits until everything is programmed, and that it is right.
func (s *site) ready() {
	s.t.Helper()
	s.agent.Await(soon, "everything is programmed")
	s.right(soon)
}

// newAPISite makes a site whose objects are in a real API server, which kube-nft
// reaches by way of a proxy that can make answers worse.
func newAPISite(t *testing.T) *site {
	t.Helper()
	s := &site{T: netlab.NewT(t), t: t}
	s.connect()
	api := cluster.Run(t, cluster.Config{
		Listen:  controlAddr[0],
		Users:   []cluster.User{user},
		Command: cluster.InNamespace(s.control.Path()),
		Dial:    s.control.DialContext,
	})
	o := &apiObjects{Cluster: api}
	o.allow(t)
	o.put(t, nodeObject())
	s.objects = o
	s.proxy = wire.Start(t, s.node, api, api.Kubeconfig(user.Name))
	s.flags = []string{"--kubeconfig", s.proxy.Kubeconfig}
	return s
}
