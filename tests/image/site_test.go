// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/kubelet"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// site is a node with two pods that serve, its control plane and a client outside:
//
//	control plane 192.0.2.2 --- node --- pod-1 10.244.1.2, pod-2 10.244.2.2
//	                             `------ client 198.51.100.2
//
// kube-nft is the third pod, on the node's network.
type site struct {
	*netlab.T
	t                     *testing.T
	control, node, client *netlab.Namespace
	api                   *cluster.Cluster
	kubelet               *kubelet.Kubelet
}

const (
	nodeName    = "node-0"
	clusterCIDR = "10.244.0.0/16"
	soon        = 15 * time.Second // for what should take milliseconds, on a busy machine
)

var (
	apiAddr  = netip.MustParseAddr("192.0.2.2")
	nodeAddr = netip.MustParseAddr("198.51.100.1")
)

// newSite makes a site in which the image is on the node, and nothing runs.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{T: netlab.NewT(t), t: t}
	s.connect()
	s.api = cluster.Run(t, cluster.Config{
		Listen:  apiAddr,
		Command: cluster.InNamespace(s.control.Path()),
		Dial:    s.control.DialContext,
	})
	s.kubelet = kubelet.Run(t, kubelet.Config{
		Node:  nodeName,
		Addr:  nodeAddr,
		Net:   s.node,
		API:   s.api,
		Tools: tools(),
	})
	s.Must(s.kubelet.Load(t.Context(), build(t)))
	return s
}

// connect makes the namespaces and everything between them, and starts the servers.
func (s *site) connect() {
	s.t.Helper()
	s.control, s.node, s.client = s.Namespace("control-plane"), s.Namespace(nodeName), s.Namespace("client")
	s.join(s.control, "api", apiAddr)
	s.join(s.client, "ext", netip.MustParseAddr("198.51.100.2"))
	s.Must(s.node.Forward(), s.node.DefaultRoute(apiAddr))
	for i := 1; i <= 2; i++ {
		pod := s.Namespace(fmt.Sprintf("pod-%d", i))
		addr := podAddr(i)
		s.join(pod, fmt.Sprintf("p%d", i), addr)
		for _, network := range []string{"tcp", "udp"} {
			s.Serve(pod, network, netip.AddrPortFrom(addr, 8080), pod.Name())
		}
	}
}

// join links a namespace to the node, whose end has the address before.
func (s *site) join(n *netlab.Namespace, port string, addr netip.Addr) {
	s.t.Helper()
	s.Must(
		netlab.Link(n, "eth0", s.node, port),
		n.Addr("eth0", netip.PrefixFrom(addr, 24)),
		s.node.Addr(port, netip.PrefixFrom(addr.Prev(), 24)),
		n.DefaultRoute(addr.Prev()),
	)
}

// deploy applies the manifests as a user would, in an overlay with what is a
// cluster's own: the image, the API server's address and the configuration. It
// returns the DaemonSet.
func (s *site) deploy() *appsv1.DaemonSet {
	s.t.Helper()
	dir := s.t.TempDir()
	base, err := filepath.Abs(filepath.Join(root, "deploy", "kustomize", "base"))
	s.Must(err)
	relative, err := filepath.Rel(dir, base)
	s.Must(err)
	name, tag, _ := strings.Cut(imageName, ":")
	overlay := fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: kube-system
resources: [%q]
images:
- name: kube-nft
  newName: %s
  newTag: %s
configMapGenerator:
- name: kube-nft
  behavior: merge
  files: [config.conf]
  literals: [apiServer=%s]
generatorOptions:
  disableNameSuffixHash: true
`, relative, name, tag, s.api.URL)
	s.Must(
		os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(overlay), 0o644),
		os.WriteFile(filepath.Join(dir, "config.conf"), []byte(s.configuration(base)), 0o644),
	)
	s.kubectl("apply", "-k", dir)
	var set appsv1.DaemonSet
	s.do(http.MethodGet, "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-nft", nil, &set)
	return &set
}

// configuration is the base's with what a cluster has to say, and conntrack.
func (s *site) configuration(base string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(base, "config.yaml"))
	s.Must(err)
	var m corev1.ConfigMap
	s.Must(yaml.Unmarshal(text, &m))
	const nobody = `clusterCIDR: ""`
	if !strings.Contains(m.Data["config.conf"], nobody) {
		s.t.Fatalf("the base's configuration has no line %s", nobody)
	}
	return strings.Replace(m.Data["config.conf"], nobody, "clusterCIDR: "+clusterCIDR, 1) + conntrack
}

// kubectl runs kubectl as the administrator.
func (s *site) kubectl(args ...string) {
	s.t.Helper()
	args = append([]string{"--kubeconfig", s.api.Kubeconfig(cluster.Admin)}, args...)
	cmd := s.control.Command(s.t.Context(), os.Getenv(kubectlEnv), args...)
	cmd.Env = append(os.Environ(), "HOME="+s.t.TempDir()) // for its cache
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("kubectl %v: %v\n%s", args, err, bytes.TrimSpace(out))
	}
}

func (s *site) do(method, path string, in, out any) {
	s.t.Helper()
	s.Must(s.api.Do(s.t.Context(), method, path, in, out))
}

// createNode creates the node's Node object.
func (s *site) createNode() {
	s.t.Helper()
	s.do(http.MethodPost, "/api/v1/nodes", &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: nodeAddr.String()},
		}},
	}, nil)
}

// createService creates a Service of type NodePort, TCP and UDP.
func (s *site) createService(name string, endpoints []discoveryv1.Endpoint) *corev1.Service {
	s.t.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeNodePort,
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80, TargetPort: intstr.FromInt32(8080)},
			},
		},
	}
	s.do(http.MethodPost, "/api/v1/namespaces/default/services", service, service)
	s.do(http.MethodPost, slicesPath, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpoints,
		Ports: []discoveryv1.EndpointPort{
			{Name: new("tcp"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))},
			{Name: new("udp"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(8080))},
		},
	}, nil)
	return service
}

const slicesPath = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"

// createLarge creates Services whose endpoints together make a transaction that is
// larger than what a socket takes unless asked (net.core.wmem_default).
func (s *site) createLarge() {
	s.t.Helper()
	for i := range 4 {
		var endpoints []discoveryv1.Endpoint
		for j := range 1000 {
			endpoints = append(endpoints, newEndpoint(netip.AddrFrom4([4]byte{10, 244, byte(100 + 10*i + j/250), byte(2 + j%250)})))
		}
		s.createService(fmt.Sprintf("large-%d", i), endpoints)
	}
}

// setEndpoints replaces the endpoints of a Service.
func (s *site) setEndpoints(name string, pods ...int) {
	s.t.Helper()
	s.do(http.MethodPatch, slicesPath+"/"+name, map[string]any{"endpoints": newEndpoints(pods...)}, nil)
}

// newEndpoints are these pods.
func newEndpoints(pods ...int) (endpoints []discoveryv1.Endpoint) {
	for _, pod := range pods {
		endpoints = append(endpoints, newEndpoint(podAddr(pod)))
	}
	return endpoints
}

func newEndpoint(addr netip.Addr) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses:  []string{addr.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		NodeName:   new(nodeName),
	}
}

func podAddr(pod int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, byte(pod), 2}) }

// answers waits until the client has an answer by each of the servers, and by no
// other.
func (s *site) answers(network string, to netip.AddrPort, servers ...string) {
	s.t.Helper()
	s.Eventually(soon, func() error {
		tally := netlab.Many(s.t.Context(), 24, 2, func(int) (netlab.Answer, error) {
			return s.client.Ask(s.t.Context(), network, to)
		})
		if tally.Failed() > 0 || len(tally.Servers) != len(servers) {
			return fmt.Errorf("%s %s: %v, want answers by %v", network, to, tally, servers)
		}
		for _, name := range servers {
			if tally.Servers[name] == 0 {
				return fmt.Errorf("%s %s: %v, want answers by %v", network, to, tally, servers)
			}
		}
		return nil
	})
}
