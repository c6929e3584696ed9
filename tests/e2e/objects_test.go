// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// manifestDir makes a directory of manifests that other users may read.
func manifestDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// write makes a manifest say these objects.
func (c *cluster) write(t *testing.T, file string, objects ...any) {
	t.Helper()
	c.writeText(t, file, manifest(t, objects...))
}

func manifest(t *testing.T, objects ...any) string {
	t.Helper()
	var docs []string
	for _, o := range objects {
		doc, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(doc))
	}
	return strings.Join(docs, "---\n")
}

// writeText replaces a manifest, as an editor does: by renaming.
func (c *cluster) writeText(t *testing.T, file, text string) {
	t.Helper()
	next := filepath.Join(c.manifests, "."+file+".next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(c.manifests, file)); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(filepath.Join(c.manifests, file)); err != nil {
		t.Fatal(err)
	}
}

// service returns a Service of both families with cluster IPs by number.
func service(name string, n int, ports ...corev1.ServicePort) *corev1.Service {
	ips := clusterIP(n)
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeClusterIP,
			ClusterIP:  ips[ip4].String(),
			ClusterIPs: texts(ips[:]...),
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports:      ports,
		},
	}
}

// servicePort returns a port of a Service.
func servicePort(name string, protocol corev1.Protocol, number uint16) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: protocol, Port: int32(number)}
}

// everyProtocol returns ports of one number, one for each network and named
// after it.
func everyProtocol(number uint16) (ports []corev1.ServicePort) {
	for _, network := range networks {
		ports = append(ports, servicePort(network, corev1.Protocol(strings.ToUpper(network)), number))
	}
	return ports
}

// withNodePort gives each port of a Service the same node port.
func withNodePort(s *corev1.Service, number uint16) *corev1.Service {
	s.Spec.Type = corev1.ServiceTypeNodePort
	for i := range s.Spec.Ports {
		s.Spec.Ports[i].NodePort = int32(number)
	}
	return s
}

// withIngress gives a Service addresses of a load balancer.
func withIngress(s *corev1.Service, ips ...netip.Addr) *corev1.Service {
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	for _, ip := range ips {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip.String()})
	}
	return s
}

// everywhere returns a Service of TCP and UDP with every kind of frontend: its
// addresses and node port are those of its number, which is below 100.
func everywhere(name string, n int) *corev1.Service {
	s := withNodePort(service(name, n, everyProtocol(80)[:2]...), uint16(30000+n))
	for f := range families {
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, externalIP(n)[f].String())
		withIngress(s, balancerIP(n)[f])
	}
	return s
}

// external lists the frontends of such a Service besides its cluster IP.
func external(n int, f family) map[string]netip.AddrPort {
	return map[string]netip.AddrPort{
		"load balancer IP": netip.AddrPortFrom(balancerIP(n)[f], 80),
		"external IP":      netip.AddrPortFrom(externalIP(n)[f], 80),
		"node port":        netip.AddrPortFrom(outside[f], uint16(30000+n)),
	}
}

// externalLocal and internalLocal make a Service's traffic policies Local.
func externalLocal(s *corev1.Service) *corev1.Service {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	return s
}

func internalLocal(s *corev1.Service) *corev1.Service {
	s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	return s
}

// slice returns an EndpointSlice of a Service with pods for its endpoints, all
// ports on targetPort.
func slice(s *corev1.Service, f family, pods ...*host) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace,
			Name:      s.Name + "-" + strings.ToLower(f.String()),
			Labels:    map[string]string{discoveryv1.LabelServiceName: s.Name},
		},
		AddressType: discoveryv1.AddressType(f.String()),
	}
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, slicePort(p.Name, p.Protocol, targetPort))
	}
	for _, p := range pods {
		out.Endpoints = append(out.Endpoints, p.endpoint(f))
	}
	return out
}

// withSlices returns a Service and its EndpointSlices of both families.
func withSlices(s *corev1.Service, pods ...*host) []any {
	return []any{s, slice(s, ip4, pods...), slice(s, ip6, pods...)}
}

// eachEndpoint changes the endpoints of what withSlices returned, by their number.
func eachEndpoint(objects []any, change func(i int, e *discoveryv1.Endpoint)) []any {
	for _, o := range objects[1:] {
		one := o.(*discoveryv1.EndpointSlice)
		for i := range one.Endpoints {
			change(i, &one.Endpoints[i])
		}
	}
	return objects
}

func slicePort(name string, protocol corev1.Protocol, number int32) discoveryv1.EndpointPort {
	return discoveryv1.EndpointPort{Name: new(name), Protocol: new(protocol), Port: new(number)}
}

// endpoint returns a host as an endpoint; the pods of the node are there.
func (h *host) endpoint(f family) discoveryv1.Endpoint {
	node := "node-1"
	if h.via == gateway {
		node = "node-0"
	}
	return discoveryv1.Endpoint{Addresses: []string{h.addrs[f].String()}, NodeName: new(node)}
}

// texts writes addresses as objects have them.
func texts(addrs ...netip.Addr) (all []string) {
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return all
}
