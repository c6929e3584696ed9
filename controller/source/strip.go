// SPDX-License-Identifier: Apache-2.0

package source

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// labelServiceProxyName on a Service says that another proxy serves it.
const labelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// What follows names the fields that a Service proxy honours. Everything else
// is dropped before an object is handed on: the rest of a real object is three
// quarters of its memory, and a field that nobody reads cannot cause work when
// it changes. The resource version is dropped as well, so that two objects which
// mean the same are equal.

// serviceLabels, sliceLabels and nodeLabels are the labels that are kept.
var (
	serviceLabels = []string{labelServiceProxyName}
	sliceLabels   = []string{discoveryv1.LabelServiceName, corev1.IsHeadlessService}
	nodeLabels    = []string{corev1.LabelTopologyZone}
	annotations   = []string{corev1.EndpointsLastChangeTriggerTime}
)

// StripService drops, in place, all that a Service proxy does not read.
func StripService(s *corev1.Service) {
	s.TypeMeta = metav1.TypeMeta{}
	s.ObjectMeta = stripMeta(&s.ObjectMeta, serviceLabels)
	in := &s.Spec
	s.Spec = corev1.ServiceSpec{
		Type:                     in.Type,
		ClusterIP:                in.ClusterIP,
		ClusterIPs:               in.ClusterIPs,
		IPFamilies:               in.IPFamilies,
		Ports:                    in.Ports,
		ExternalIPs:              in.ExternalIPs,
		ExternalTrafficPolicy:    in.ExternalTrafficPolicy,
		InternalTrafficPolicy:    in.InternalTrafficPolicy,
		SessionAffinity:          in.SessionAffinity,
		SessionAffinityConfig:    in.SessionAffinityConfig,
		LoadBalancerSourceRanges: in.LoadBalancerSourceRanges,
		HealthCheckNodePort:      in.HealthCheckNodePort,
	}
	for i, p := range s.Spec.Ports {
		s.Spec.Ports[i] = corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, Port: p.Port, NodePort: p.NodePort}
	}
	var ingress []corev1.LoadBalancerIngress
	for _, i := range s.Status.LoadBalancer.Ingress {
		if i.IP != "" {
			ingress = append(ingress, corev1.LoadBalancerIngress{IP: i.IP, IPMode: i.IPMode})
		}
	}
	s.Status = corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: ingress}}
}

// StripSlice drops, in place, all that a Service proxy does not read. Of an
// endpoint's addresses only the first one counts: the others are an API leftover.
func StripSlice(s *discoveryv1.EndpointSlice) {
	s.TypeMeta = metav1.TypeMeta{}
	s.ObjectMeta = stripMeta(&s.ObjectMeta, sliceLabels)
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		addresses := e.Addresses
		if len(addresses) > 1 {
			addresses = []string{addresses[0]}
		}
		s.Endpoints[i] = discoveryv1.Endpoint{
			Addresses:  addresses,
			Conditions: e.Conditions,
			NodeName:   e.NodeName,
			Hints:      e.Hints,
		}
	}
	for i, p := range s.Ports {
		s.Ports[i] = discoveryv1.EndpointPort{Name: p.Name, Protocol: p.Protocol, Port: p.Port}
	}
}

// StripNode drops, in place, all that a Service proxy does not read of its node.
func StripNode(n *corev1.Node) {
	deletion := n.DeletionTimestamp
	n.TypeMeta = metav1.TypeMeta{}
	n.ObjectMeta = stripMeta(&n.ObjectMeta, nodeLabels)
	n.DeletionTimestamp = deletion
	n.Spec = corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs, Taints: n.Spec.Taints}
	n.Status = corev1.NodeStatus{Addresses: n.Status.Addresses}
}

// StripServiceCIDR drops, in place, all that a Service proxy does not read.
func StripServiceCIDR(c *networkingv1.ServiceCIDR) {
	c.TypeMeta = metav1.TypeMeta{}
	c.ObjectMeta = stripMeta(&c.ObjectMeta, nil)
	c.Status = networkingv1.ServiceCIDRStatus{}
}

// stripMeta keeps what names an object, tells its age and carries its meaning.
func stripMeta(m *metav1.ObjectMeta, labels []string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:         m.Namespace,
		Name:              m.Name,
		UID:               m.UID,
		CreationTimestamp: m.CreationTimestamp,
		Labels:            keep(m.Labels, labels),
		Annotations:       keep(m.Annotations, annotations),
	}
}

// keep returns what m holds under the given names, nil when that is nothing.
func keep(m map[string]string, names []string) map[string]string {
	held := 0
	for _, name := range names {
		if _, ok := m[name]; ok {
			held++
		}
	}
	switch held {
	case 0:
		return nil
	case len(m):
		return m
	}
	kept := make(map[string]string, held)
	for _, name := range names {
		if v, ok := m[name]; ok {
			kept[name] = v
		}
	}
	return kept
}

// serviceWanted reports whether a Service is one that the API source would ask
// for. It is the selectors of that source, for the sources that have no server.
func serviceWanted(s *corev1.Service) bool {
	_, other := s.Labels[labelServiceProxyName]
	return !other && s.Spec.ClusterIP != corev1.ClusterIPNone
}

// sliceWanted is serviceWanted for EndpointSlices.
func sliceWanted(s *discoveryv1.EndpointSlice) bool {
	_, headless := s.Labels[corev1.IsHeadlessService]
	return !headless
}
