// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

const (
	nodesPath    = "/api/v1/nodes"
	podsPath     = "/api/v1/namespaces/default/pods"
	servicesPath = "/api/v1/namespaces/default/services"
	zoneLabel    = corev1.LabelTopologyZone
)

// createNode registers a node, as its kubelet would.
func (s *site) createNode(n *node, labels map[string]string) {
	s.t.Helper()
	s.do(http.MethodPost, nodesPath, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name(), Labels: labels},
		Status:     corev1.NodeStatus{Addresses: nodeAddresses(n.addrs)},
	}, nil)
}

func nodeAddresses(addrs []netip.Addr) (all []corev1.NodeAddress) {
	for _, a := range addrs {
		all = append(all, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return all
}

// pod is a Pod object and, in a namespace behind its node, a server on port 8080 of
// TCP and UDP, in both families, that answers with the pod's name.
type pod struct {
	*netlab.Namespace
	node  *node
	addrs []netip.Addr
}

// createPod creates a pod that carries the label app, and runs it: it is ready.
func (s *site) createPod(n *node, app string) *pod {
	s.t.Helper()
	p := s.addPod(n, app)
	s.do(http.MethodPost, podsPath, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name(), Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{
			NodeName:   n.Name(),
			Containers: []corev1.Container{{Name: "server", Image: "server", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}},
		},
	}, nil)
	s.setReady(p, true)
	return p
}

// addPod makes the pod's namespace behind its node, and the servers in it.
func (s *site) addPod(n *node, app string) *pod {
	s.t.Helper()
	n.pods++
	name, port := fmt.Sprintf("%s-%d-%d", app, n.index, n.pods), fmt.Sprintf("p%d", n.pods)
	own := addrs(fmt.Sprintf("10.244.%d.%d", n.index, 1+2*n.pods), fmt.Sprintf("fd00:10:244:%d::%d", n.index, 1+2*n.pods))
	// The gateway of all pods is the same, as many network plugins have it.
	p := &pod{Namespace: s.Namespace(name), node: n, addrs: own}
	s.Must(
		netlab.Link(p.Namespace, "eth0", n.Namespace, port),
		// Of link scope: what the node itself sends has the node's own address.
		n.IP("addr add 169.254.1.1/32 dev "+port+" scope link", "addr add fe80::1/64 dev "+port+" nodad"),
		p.Addr("eth0", narrow(own)...),
		p.IP("route add 169.254.1.1 dev eth0 scope link", "route add default via 169.254.1.1 dev eth0",
			"route add ::/0 via fe80::1 dev eth0"))
	for _, a := range own {
		s.Must(n.IP(fmt.Sprintf("route add %s dev %s", a, port)))
		for _, network := range []string{"tcp", "udp"} {
			s.Serve(p.Namespace, network, netip.AddrPortFrom(a, 8080), name)
		}
	}
	s.pods[name] = p
	return p
}

// setReady writes the status of a pod that runs, as its kubelet would.
func (s *site) setReady(p *pod, ready bool) {
	s.t.Helper()
	s.patch(podsPath+"/"+p.Name()+"/status", podStatus(p, ready))
}

func podStatus(p *pod, ready bool) map[string]any {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	now := metav1.NewTime(time.Now())
	return map[string]any{"status": corev1.PodStatus{
		Phase:  corev1.PodRunning,
		HostIP: p.node.addrs[0].String(),
		PodIP:  p.addrs[0].String(),
		PodIPs: []corev1.PodIP{{IP: p.addrs[0].String()}, {IP: p.addrs[1].String()}},
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: status, LastTransitionTime: now},
			{Type: corev1.ContainersReady, Status: status, LastTransitionTime: now},
		},
	}}
}

// endPod deletes a pod: it has its grace period, in which it terminates.
func (s *site) endPod(p *pod) {
	s.t.Helper()
	s.kubectl("", "delete", "pod", p.Name(), "--wait=false")
}

// reapPod lets a pod be gone, as its kubelet does when it has ended.
func (s *site) reapPod(p *pod) {
	s.t.Helper()
	s.kubectl("", "delete", "pod", p.Name(), "--grace-period=0", "--force")
}

// service is a Service in the API: what a client needs to know of it.
type service struct {
	name      string
	addrs     []netip.Addr
	port      uint16
	nodePorts map[string]uint16 // by protocol
	balancer  []netip.Addr
}

// at is where a family of the Service listens.
func (s service) at(family int) netip.AddrPort {
	return netip.AddrPortFrom(s.addrs[family], s.port)
}

// atNode is where a node listens for the Service.
func (s service) atNode(n *node, network string, family int) netip.AddrPort {
	return netip.AddrPortFrom(n.addrs[family], s.nodePorts[network])
}

// atBalancer is where its load balancer listens.
func (s service) atBalancer(family int) netip.AddrPort {
	return netip.AddrPortFrom(s.balancer[family], s.port)
}

// apply lets kubectl apply a manifest of a dual-stack Service whose ports are 80 of
// TCP and UDP. fields go into its spec, as YAML.
func (s *site) apply(name, app string, fields ...string) service {
	s.t.Helper()
	text := fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: %s}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: %s}
  ports:
  - {name: tcp, protocol: TCP, port: 80, targetPort: 8080}
  - {name: udp, protocol: UDP, port: 80, targetPort: 8080}
`, name, app)
	for _, field := range fields {
		text += "  " + field + "\n"
	}
	s.kubectl(text, "apply", "-f", "-")
	return s.service(name)
}

// service reads a Service.
func (s *site) service(name string) service {
	s.t.Helper()
	var made corev1.Service
	s.do(http.MethodGet, servicesPath+"/"+name, nil, &made)
	all := service{name: name, port: uint16(made.Spec.Ports[0].Port), nodePorts: make(map[string]uint16)}
	all.addrs = addrs(made.Spec.ClusterIPs...)
	for _, p := range made.Spec.Ports {
		network := map[corev1.Protocol]string{corev1.ProtocolTCP: "tcp", corev1.ProtocolUDP: "udp"}[cmp.Or(p.Protocol, corev1.ProtocolTCP)]
		all.nodePorts[network] = uint16(p.NodePort)
	}
	for _, i := range made.Status.LoadBalancer.Ingress {
		all.balancer = append(all.balancer, netip.MustParseAddr(i.IP))
	}
	return all
}

// balance gives a Service the addresses of a load balancer.
func (s *site) balance(name string, ips ...string) service {
	s.t.Helper()
	var ingress []corev1.LoadBalancerIngress
	for _, ip := range ips {
		ingress = append(ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	s.patch(servicesPath+"/"+name+"/status", map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}})
	return s.service(name)
}

// narrow returns prefixes of one address each.
func narrow(all []netip.Addr) (prefixes []netip.Prefix) {
	for _, a := range all {
		prefixes = append(prefixes, netip.PrefixFrom(a, a.BitLen()))
	}
	return prefixes
}

// podsOf are the pods of an app, in the order of their names.
func (s *site) podsOf(app string) (all []*pod) {
	for _, name := range slices.Sorted(maps.Keys(s.pods)) {
		if strings.HasPrefix(name, app+"-") {
			all = append(all, s.pods[name])
		}
	}
	return all
}

func names(pods []*pod) (all []string) {
	for _, p := range pods {
		all = append(all, p.Name())
	}
	return all
}
