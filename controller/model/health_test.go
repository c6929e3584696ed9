// SPDX-License-Identifier: Apache-2.0

package model

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestHealthCheckNodePort(t *testing.T) {
	const local, cluster = corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceExternalTrafficPolicyCluster
	cases := []struct {
		name     string
		kind     corev1.ServiceType
		policy   corev1.ServiceExternalTrafficPolicy
		port     int32
		want     uint16
		problems []string
	}{
		{"local", corev1.ServiceTypeLoadBalancer, local, 32000, 32000, nil},
		{"none", corev1.ServiceTypeLoadBalancer, local, 0, 0, nil},
		{"highest", corev1.ServiceTypeLoadBalancer, local, 65535, 65535, nil},
		{"stale policy", corev1.ServiceTypeLoadBalancer, cluster, 32000, 0, nil},
		{"stale type", corev1.ServiceTypeNodePort, local, 32000, 0, nil},
		{"stale and invalid", corev1.ServiceTypeNodePort, local, 70000, 0, nil},
		{"too high", corev1.ServiceTypeLoadBalancer, local, 65536, 0, []string{"spec.healthCheckNodePort: 65536 is not"}},
		{"negative", corev1.ServiceTypeLoadBalancer, local, -1, 0, []string{"spec.healthCheckNodePort: -1"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := FromService(web(func(s *corev1.Service) {
				s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = tc.kind, tc.policy, tc.port
			}), "")
			if got.HealthCheckNodePort != tc.want {
				t.Errorf("port %d, want %d", got.HealthCheckNodePort, tc.want)
			}
			checkProblems(t, err, tc.problems)
		})
	}
}

func TestLocalReady(t *testing.T) {
	yes, no := ptr(true), ptr(false)
	ready := discoveryv1.EndpointConditions{}
	down := discoveryv1.EndpointConditions{Ready: no}
	leaving := discoveryv1.EndpointConditions{Ready: no, Serving: yes, Terminating: yes}
	published := discoveryv1.EndpointConditions{Ready: yes, Serving: yes, Terminating: yes}
	at := func(node string, c discoveryv1.EndpointConditions, ip string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: &node, Conditions: c}
	}
	port := func(name string, number int32) discoveryv1.EndpointPort {
		return discoveryv1.EndpointPort{Name: &name, Port: &number}
	}
	type ports = []discoveryv1.EndpointPort
	type endpoints = []discoveryv1.Endpoint
	http, metrics, other := port("http", 8080), port("metrics", 9090), port("other", 1)
	cases := []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		v4, v6 int
	}{
		{"no slices", nil, 0, 0},
		{"local and remote", of(ports{http}, endpoints{at("here", ready, "10.128.0.1"), at("there", ready, "10.128.0.2")}), 1, 0},
		{"two ports of one pod", of(ports{http, metrics}, endpoints{at("here", ready, "10.128.0.1")}), 1, 0},
		{"not ready", of(ports{http}, endpoints{at("here", down, "10.128.0.1"), at("here", leaving, "10.128.0.2")}), 0, 0},
		{"published while it terminates", of(ports{http}, endpoints{at("here", published, "10.128.0.1")}), 1, 0},
		{"not a port of the Service", of(ports{other}, endpoints{at("here", ready, "10.128.0.1")}), 0, 0},
		{"two slices", append(of(ports{http}, endpoints{at("here", ready, "10.128.0.1"), at("here", ready, "10.128.0.2")}),
			of(ports{metrics}, endpoints{at("here", ready, "10.128.0.2"), at("here", ready, "10.128.0.3")})...), 3, 0},
		{"ready on one port of two", append(of(ports{http}, endpoints{at("here", down, "10.128.0.1")}),
			of(ports{metrics}, endpoints{at("here", ready, "10.128.0.1")})...), 1, 0},
		{"an address again in use", append(of(ports{http}, endpoints{at("here", leaving, "10.128.0.1")}),
			of(ports{http}, endpoints{at("here", ready, "10.128.0.1")})...), 1, 0},
		{"both families", append(of(ports{http}, endpoints{at("here", ready, "10.128.0.1")}),
			of(ports{http}, endpoints{at("here", ready, "fd00:128::1"), at("here", ready, "fd00:128::2")})...), 1, 2},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			state := NewState()
			svc, err := FromService(web(func(s *corev1.Service) {
				s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "metrics", Port: 9090}}
			}), "")
			if err != nil {
				t.Fatal(err)
			}
			state.SetService(svc)
			for i, in := range tc.slices {
				in.Name = string(rune('a' + i))
				s, err := FromSlice(in, "here")
				if err != nil {
					t.Fatal(err)
				}
				state.SetSlice(s)
			}
			e := state.Services()[0]
			if got := e.LocalReady(IPv4); got != tc.v4 {
				t.Errorf("%d IPv4, want %d", got, tc.v4)
			}
			if got := e.LocalReady(IPv6); got != tc.v6 {
				t.Errorf("%d IPv6, want %d", got, tc.v6)
			}
		})
	}
	if got := (&Entry{Name: types.NamespacedName{Name: "web"}}).LocalReady(IPv4); got != 0 {
		t.Errorf("%d without a Service, want 0", got)
	}
}

// of makes one slice of the Service web, in a list.
func of(ports []discoveryv1.EndpointPort, endpoints []discoveryv1.Endpoint) []*discoveryv1.EndpointSlice {
	return []*discoveryv1.EndpointSlice{slice("", func(s *discoveryv1.EndpointSlice) {
		s.Ports, s.Endpoints = ports, endpoints
		if FamilyOf(addr(endpoints[0].Addresses[0])) == IPv6 {
			s.AddressType = discoveryv1.AddressTypeIPv6
		}
	})}
}
