// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// healthCheckNodePort reads where a load balancer asks whether this node has
// endpoints (spec.healthCheckNodePort). It asks only about Services of the type
// LoadBalancer with the external policy Local; on others the number is a leftover.
func healthCheckNodePort(s *corev1.Service, p *problems) uint16 {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.Spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		return 0
	}
	port := s.Spec.HealthCheckNodePort
	if port < 0 || port > 65535 {
		p.add("spec.healthCheckNodePort", fmt.Sprintf("%d is not in 1-65535", port))
		return 0
	}
	return uint16(port)
}

// LocalReady counts the addresses on this node at which any port of the Service
// has a ready endpoint: what a load balancer is told on the health check node
// port. Endpoints that merely serve while they terminate do not count, though
// connections still go to them: the load balancer is to send no more. Unlike in
// kube-proxy, ports of a slice that the Service does not have do not count.
func (e *Entry) LocalReady(f Family) int {
	if e.Service == nil {
		return 0
	}
	ready := make(map[netip.Addr]bool)
	var endpoints []PortEndpoint
	for i := range e.Service.Ports {
		endpoints = e.Endpoints(endpoints[:0], &e.Service.Ports[i], f)
		for _, endpoint := range endpoints {
			if endpoint.Local && endpoint.Ready {
				ready[endpoint.Endpoint.Addr] = true
			}
		}
	}
	return len(ready)
}
