// SPDX-License-Identifier: Apache-2.0

package security

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// node is a node with two pods and a client outside:
//
//	client 198.51.100.2 --- node --- pod-1 10.244.1.2, pod-2 10.244.2.2
type node struct {
	*netlab.T
	t            *testing.T
	client, node *netlab.Namespace
	manifests    string
	config       string           // kube-proxy's file
	program      *process.Process // that runs; nil is none
}

var (
	nodeAddr  = netip.MustParseAddr("198.51.100.1")
	clusterIP = netip.MustParseAddrPort("10.96.0.1:80")
	sticky    = netip.MustParseAddrPort("10.96.0.2:80")
	nodePort  = netip.AddrPortFrom(nodeAddr, 30080)
	localhost = netip.MustParseAddrPort("127.0.0.1:30080")
)

// soon is patience with what takes milliseconds, on a busy machine.
const soon = 20 * time.Second

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{T: netlab.NewT(t), t: t, manifests: readable(t), config: filepath.Join(readable(t), "config.conf")}
	n.client, n.node = n.Namespace("client"), n.Namespace("node")
	n.join(n.client, "ext", netip.MustParseAddr("198.51.100.2"))
	n.Must(n.node.Forward(), n.node.DefaultRoute(netip.MustParseAddr("198.51.100.2")))
	for i := 1; i <= 2; i++ {
		pod := n.Namespace(fmt.Sprintf("pod-%d", i))
		n.join(pod, fmt.Sprintf("p%d", i), podAddr(i))
		for _, network := range []string{"tcp", "udp"} {
			n.Serve(pod, network, netip.AddrPortFrom(podAddr(i), 8080), pod.Name())
		}
	}
	n.configure(0)
	n.endpoints(1, 2)
	return n
}

// readable makes a directory that other users may read.
func readable(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func podAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, byte(i), 2}) }

// join links a namespace to the node, whose end has the address before.
func (n *node) join(to *netlab.Namespace, port string, addr netip.Addr) {
	n.t.Helper()
	n.Must(
		netlab.Link(to, "eth0", n.node, port),
		to.Addr("eth0", netip.PrefixFrom(addr, 24)),
		n.node.Addr(port, netip.PrefixFrom(addr.Prev(), 24)),
		to.DefaultRoute(addr.Prev()),
	)
}

// configure writes kube-proxy's file: it leaves conntrack alone, which is the machine's
// in part, but for a timeout, and serves node ports on localhost too.
func (n *node) configure(verbosity int, more ...string) {
	n.t.Helper()
	n.replace(n.config, fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: 10.244.0.0/16
nodePortAddresses: [primary, localhost]
featureGates: {KubeProxyNFTablesLocalhostNodePorts: true}
conntrack: {maxPerCore: 0, tcpEstablishedTimeout: 11h, tcpCloseWaitTimeout: 0s}
oomScoreAdj: -997
enableProfiling: true
logging: {format: json, verbosity: %d}
%s
`, verbosity, strings.Join(more, "\n")))
}

// endpoints has the Services lead to these pods.
func (n *node) endpoints(pods ...int) {
	n.t.Helper()
	var text strings.Builder
	for i, s := range []string{"web", "sticky"} {
		affinity, port := "", "nodePort: 30080"
		if s == "sticky" {
			affinity, port = "sessionAffinity: ClientIP", "nodePort: 30081"
		}
		fmt.Fprintf(&text, `apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  type: NodePort
  clusterIP: 10.96.0.%[2]d
  %[3]s
  ports:
  - {name: tcp, protocol: TCP, port: 80, %[4]s}
  - {name: udp, protocol: UDP, port: 80, %[4]s}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %[1]s, labels: {kubernetes.io/service-name: %[1]s}}
addressType: IPv4
ports: [{name: tcp, protocol: TCP, port: 8080}, {name: udp, protocol: UDP, port: 8080}]
endpoints:
`, s, i+1, affinity, port)
		for _, pod := range pods {
			fmt.Fprintf(&text, "- {addresses: [%s], nodeName: node-0}\n", podAddr(pod))
		}
		text.WriteString("---\n")
	}
	n.replace(filepath.Join(n.manifests, "services.yaml"), text.String())
}

// replace writes a file as an editor does: by renaming.
func (n *node) replace(path, text string) {
	n.t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next")
	n.Must(os.WriteFile(next, []byte(text), 0o644), os.Rename(next, path))
}

// run starts kube-nft, confined as the arguments say, and waits until all is programmed.
func (n *node) run(confined []string, flags ...string) {
	n.t.Helper()
	args := append([]string{process.KubeNFT(), "run", "--manifests", n.manifests, "--hostname-override", "node-0"}, flags...)
	if n.config != "" {
		args = append(args, "--config", n.config)
	}
	n.program = process.Start(n.t, n.node, os.Getenv(confineEnv), append(slices.Clone(confined), args...)...)
	n.program.Await(soon, "everything is programmed")
}

// toEnd runs kube-nft, confined as the arguments say, and returns how it ended.
func (n *node) toEnd(confined []string, args ...string) (code int, said string) {
	n.t.Helper()
	p := process.Start(n.t, n.node, os.Getenv(confineEnv), slices.Concat(confined, []string{process.KubeNFT()}, args)...)
	return p.Exit(soon), p.Text()
}

// answered waits until each of the pods has answered, and nobody else.
func (n *node) answered(from *netlab.Namespace, network string, to netip.AddrPort, pods ...int) {
	n.t.Helper()
	n.Eventually(soon, func() error {
		if n.program != nil && n.program.Gone() != nil {
			n.t.Fatal(n.program.Gone())
		}
		tally := netlab.Many(n.t.Context(), 24, 2, func(int) (netlab.Answer, error) {
			return from.Ask(n.t.Context(), network, to, netlab.Timeout(2*time.Second))
		})
		if tally.Failed() > 0 || len(tally.Servers) != len(pods) {
			return fmt.Errorf("%s %s from %s: %v, want answers by %v", network, to, from.Name(), tally, pods)
		}
		for _, pod := range pods {
			if tally.Servers[fmt.Sprintf("pod-%d", pod)] == 0 {
				return fmt.Errorf("%s %s from %s: %v, want answers by %v", network, to, from.Name(), tally, pods)
			}
		}
		return nil
	})
}

// get asks over HTTP on the node.
func (n *node) get(url string) (int, string) {
	n.t.Helper()
	status, body, err := process.Get(n.node, url)
	n.Must(err)
	return status, body
}
