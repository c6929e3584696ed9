// SPDX-License-Identifier: Apache-2.0

package source

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A manifest comes without an API server, so what that would fill in is filled
// in here: those defaults that a Service proxy reads, and no more. Nothing is
// allocated: a Service without an address stays without one. The conditions of
// an endpoint have meaning when they are left out, and are left as they are.

func defaultService(s *corev1.Service) {
	defaultNamespace(&s.ObjectMeta)
	spec := &s.Spec
	orSet(&spec.Type, corev1.ServiceTypeClusterIP)
	orSet(&spec.SessionAffinity, corev1.ServiceAffinityNone)
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		defaultAffinity(spec)
	}
	for i := range spec.Ports {
		orSet(&spec.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		return
	}
	if spec.InternalTrafficPolicy == nil {
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	}
	// As in the API, the external policy is for Services that can be reached from outside.
	if spec.Type != corev1.ServiceTypeClusterIP || len(spec.ExternalIPs) > 0 {
		orSet(&spec.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	defaultAddresses(spec)
}

func defaultAffinity(spec *corev1.ServiceSpec) {
	if spec.SessionAffinityConfig == nil {
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{}
	}
	if spec.SessionAffinityConfig.ClientIP == nil {
		spec.SessionAffinityConfig.ClientIP = &corev1.ClientIPConfig{}
	}
	if spec.SessionAffinityConfig.ClientIP.TimeoutSeconds == nil {
		spec.SessionAffinityConfig.ClientIP.TimeoutSeconds = new(corev1.DefaultClientIPServiceAffinitySeconds)
	}
}

// defaultAddresses makes clusterIP, clusterIPs and ipFamilies say the same.
// Families are derived only when every address is one.
func defaultAddresses(spec *corev1.ServiceSpec) {
	switch {
	case len(spec.ClusterIPs) == 0 && spec.ClusterIP != "":
		spec.ClusterIPs = []string{spec.ClusterIP}
	case spec.ClusterIP == "" && len(spec.ClusterIPs) > 0:
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	if len(spec.IPFamilies) > 0 {
		return
	}
	var families []corev1.IPFamily
	for _, ip := range spec.ClusterIPs {
		addr, err := netip.ParseAddr(ip)
		switch {
		case err != nil:
			return
		case addr.Is4():
			families = append(families, corev1.IPv4Protocol)
		default:
			families = append(families, corev1.IPv6Protocol)
		}
	}
	spec.IPFamilies = families
}

func defaultSlice(s *discoveryv1.EndpointSlice) {
	defaultNamespace(&s.ObjectMeta)
	for i := range s.Ports {
		if s.Ports[i].Name == nil {
			s.Ports[i].Name = new("")
		}
		if s.Ports[i].Protocol == nil {
			s.Ports[i].Protocol = new(corev1.ProtocolTCP)
		}
	}
}

func defaultNamespace(m *metav1.ObjectMeta) {
	orSet(&m.Namespace, metav1.NamespaceDefault)
}

// orSet sets *p to value when it is empty.
func orSet[T ~string](p *T, value T) {
	if *p == "" {
		*p = value
	}
}
