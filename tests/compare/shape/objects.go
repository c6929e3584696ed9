// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"fmt"
	"iter"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Where every cluster is asked for what its pods need first.
var (
	Kubernetes = netip.MustParseAddrPort("10.0.0.1:443") // default/kubernetes, which the API server writes
	DNS        = netip.MustParseAddrPort("10.0.0.10:53") // kube-system/kube-dns, UDP and TCP
)

// Watched is how many Services there are beside the shape's, whose changes are measured.
const Watched = 4

// Objects are the shape's Services and EndpointSlices, in the order in which they are
// to be written: the watched ones and kube-dns first.
func (s Shape) Objects() iter.Seq[Object] {
	return func(yield func(Object) bool) {
		for _, o := range basics() {
			if !yield(o) {
				return
			}
		}
		for i := range s.Services {
			if !yield(s.Service(i)) {
				return
			}
			for _, slice := range s.Slices(i) {
				if !yield(slice) {
					return
				}
			}
		}
	}
}

// basics are what every cluster has.
func basics() []Object {
	dns := NewService("kube-system", "kube-dns", DNS.Addr(),
		ServicePort("dns", corev1.ProtocolUDP, 53, 53), ServicePort("dns-tcp", corev1.ProtocolTCP, 53, 53), ServicePort("metrics", corev1.ProtocolTCP, 9153, 9153))
	dns.Labels = map[string]string{"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
	all := []Object{dns, NewSlice(dns, 0, netip.MustParseAddr("10.190.0.1"), netip.MustParseAddr("10.190.0.2"))}
	for i := range Watched {
		all = append(all, WatchedService(i), WatchedSlice(i, 0))
	}
	return all
}

// Service is one of the shape's.
func (s Shape) Service(i int) *corev1.Service {
	return NewService("default", fmt.Sprintf("service-%06d", i), s.Frontend(i).Addr(), ServicePort("http", corev1.ProtocolTCP, Port, TargetPort))
}

// Slices are those of one of the shape's Services.
func (s Shape) Slices(i int) (all []*discoveryv1.EndpointSlice) {
	service := s.Service(i)
	first, n := s.EndpointsOf(i)
	for at := 0; at < n; at += perSlice {
		addrs := make([]netip.Addr, min(perSlice, n-at))
		for j := range addrs {
			addrs[j] = Endpoint(first + at + j)
		}
		all = append(all, NewSlice(service, at/perSlice, addrs...))
	}
	return all
}

// WatchedFrontend is where a watched Service is asked.
func WatchedFrontend(i int) netip.AddrPort { return netip.AddrPortFrom(plus(firstWatched, i), Port) }

// WatchedEndpoint is one of the addresses that the endpoints of a watched Service have
// in turn.
func WatchedEndpoint(i, version int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 191, byte(i), byte(1 + version%200)})
}

// WatchedService is a Service whose changes are measured.
func WatchedService(i int) *corev1.Service {
	return NewService("default", fmt.Sprintf("watched-%d", i), WatchedFrontend(i).Addr(), ServicePort("http", corev1.ProtocolTCP, Port, TargetPort))
}

// WatchedSlice is the EndpointSlice of a watched Service, with an endpoint for each
// of the versions.
func WatchedSlice(i int, versions ...int) *discoveryv1.EndpointSlice {
	addrs := make([]netip.Addr, len(versions))
	for j, v := range versions {
		addrs[j] = WatchedEndpoint(i, v)
	}
	return NewSlice(WatchedService(i), 0, addrs...)
}

// ServicePort is a port of a Service.
func ServicePort(name string, protocol corev1.Protocol, port, target int) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Protocol: protocol, Port: int32(port), TargetPort: intstr.FromInt32(int32(target))}
}

// NewService is a Service as an API server completes it, so that this costs it little.
func NewService(namespace, name string, ip netip.Addr, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeClusterIP,
			ClusterIP:             ip.String(),
			ClusterIPs:            []string{ip.String()},
			IPFamilies:            []corev1.IPFamily{corev1.IPv4Protocol},
			IPFamilyPolicy:        new(corev1.IPFamilyPolicySingleStack),
			SessionAffinity:       corev1.ServiceAffinityNone,
			InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyCluster),
			Selector:              map[string]string{"app": name},
			Ports:                 ports,
		},
	}
}

// NewSlice is an EndpointSlice as the endpoints' controller writes it: one of a Service's,
// whose ports it has, with pods at the addresses, all ready.
func NewSlice(of *corev1.Service, index int, addrs ...netip.Addr) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:    of.Namespace,
			Name:         fmt.Sprintf("%s-%05d", of.Name, index),
			GenerateName: of.Name + "-",
			Labels: map[string]string{
				"app":                        of.Name,
				discoveryv1.LabelServiceName: of.Name,
				discoveryv1.LabelManagedBy:   "endpointslice-controller.k8s.io",
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "v1", Kind: "Service", Name: of.Name, UID: uid(of.Spec.ClusterIP),
				Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for _, p := range of.Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: new(p.Name), Protocol: new(p.Protocol), Port: new(p.TargetPort.IntVal)})
	}
	for _, a := range addrs {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{a.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			NodeName:   new(fmt.Sprintf("worker-%04d", hostOf(a))),
			TargetRef: &corev1.ObjectReference{
				Kind: "Pod", Namespace: of.Namespace, UID: uid(a.String()),
				Name: fmt.Sprintf("%s-5d8f9c7b6-%05x", of.Name, number(a)&0xfffff),
			},
		})
	}
	return slice
}

// hostOf is the node of a pod, of which there are 250 or so on each.
func hostOf(a netip.Addr) int { return number(a) >> 8 & 0x3fff }

// uid is a UID that is as long as any, and that of the address alone.
func uid(addr string) types.UID {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return ""
	}
	return types.UID(fmt.Sprintf("%08x-0000-4000-8000-%012x", number(a), number(a)))
}
