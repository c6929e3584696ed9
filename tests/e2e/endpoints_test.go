// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestPorts: how Service ports, slices and their ports come together (A1.1,
// A1.16, A2.1, A2.9, A2.10, F12). Every case is a Service of its own.
func TestPorts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, h := range []*host{c.a, c.b} {
		for f := range families {
			for _, port := range []uint16{8081, 8082} {
				for _, network := range networks[:2] {
					c.Serve(h.Namespace, network, h.at(family(f), port), fmt.Sprintf("%s.%d", h.Name(), port))
				}
			}
		}
	}
	type expect struct {
		network string
		port    uint16
		servers []string // none: refused
	}
	web, metrics := servicePort("web", "TCP", 80), servicePort("metrics", "TCP", 9100)
	cases := []struct {
		name    string
		ports   []corev1.ServicePort
		slices  func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice
		expects []expect
	}{
		{"A1.16 several named ports", []corev1.ServicePort{web, metrics},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one := slice(s, f, c.a, c.b)
				one.Ports[1].Port = new(int32(8081))
				return []*discoveryv1.EndpointSlice{one}
			},
			[]expect{{"tcp", 80, []string{"a", "b"}}, {"tcp", 9100, []string{"a.8081", "b.8081"}}, {"tcp", 81, nil}}},
		{"A1.1 one number for TCP and UDP", []corev1.ServicePort{servicePort("t", "TCP", 53), servicePort("u", "UDP", 53)},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one := slice(s, f, c.a)
				one.Ports[1].Port = new(int32(8082))
				return []*discoveryv1.EndpointSlice{one}
			},
			[]expect{{"tcp", 53, []string{"a"}}, {"udp", 53, []string{"a.8082"}}, {"sctp", 53, nil}}},
		{"A1.16 other target ports in other slices", []corev1.ServicePort{web},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one, two := slice(s, f, c.a), slice(s, f, c.a, c.b)
				two.Name += "-2"
				two.Ports[0].Port = new(int32(8081))
				return []*discoveryv1.EndpointSlice{one, two}
			},
			[]expect{{"tcp", 80, []string{"a", "a.8081", "b.8081"}}}},
		{"A2.9 slices that overlap", []corev1.ServicePort{web},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one, two := slice(s, f, c.a, c.b), slice(s, f, c.b, c.r)
				two.Name += "-2"
				return []*discoveryv1.EndpointSlice{one, two}
			},
			[]expect{{"tcp", 80, []string{"a", "b", "r"}}}},
		{"A2.9 a running pod has the address of one that terminates", []corev1.ServicePort{web},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one, two := slice(s, f, c.a), slice(s, f, c.a)
				two.Name += "-2"
				two.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: new(false), Terminating: new(true)}
				return []*discoveryv1.EndpointSlice{one, two}
			},
			[]expect{{"tcp", 80, []string{"a"}}}},
		{"A1.16 a port without a number", []corev1.ServicePort{web, metrics},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one := slice(s, f, c.a)
				one.Ports[1].Port = nil
				return []*discoveryv1.EndpointSlice{one}
			},
			[]expect{{"tcp", 80, []string{"a"}}, {"tcp", 9100, nil}}},
		// The API server writes "" where a slice's port has no name, and so do manifests.
		{"A1.16 a port without a name", []corev1.ServicePort{servicePort("", "TCP", 80)},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one := slice(s, f, c.a)
				one.Ports[0].Name = nil
				return []*discoveryv1.EndpointSlice{one}
			},
			[]expect{{"tcp", 80, []string{"a"}}}},
		{"A1.16 a port of another name", []corev1.ServicePort{web},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one := slice(s, f, c.a)
				one.Ports[0].Name = new("www")
				return []*discoveryv1.EndpointSlice{one}
			},
			[]expect{{"tcp", 80, nil}}},
		{"A2.1 names instead of addresses", []corev1.ServicePort{web},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one, two := slice(s, f, c.a), slice(s, f)
				two.Name += "-fqdn"
				two.AddressType = discoveryv1.AddressTypeFQDN
				two.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"example.org"}}}
				return []*discoveryv1.EndpointSlice{one, two}
			},
			[]expect{{"tcp", 80, []string{"a"}}}},
		{"A2.1 only the first address counts", []corev1.ServicePort{web},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one := slice(s, f, c.a)
				one.Endpoints[0].Addresses = append(one.Endpoints[0].Addresses, c.b.addrs[f].String())
				return []*discoveryv1.EndpointSlice{one}
			},
			[]expect{{"tcp", 80, []string{"a"}}}},
		{"A2.10 a slice that somebody wrote", []corev1.ServicePort{web},
			func(s *corev1.Service, f family) []*discoveryv1.EndpointSlice {
				one := slice(s, f, c.a)
				one.Endpoints[0].NodeName = nil
				one.Labels[discoveryv1.LabelManagedBy] = "somebody"
				return []*discoveryv1.EndpointSlice{one}
			},
			[]expect{{"tcp", 80, []string{"a"}}}},
	}
	for i, tt := range cases {
		s := service(fmt.Sprint("case-", i), 1+i, tt.ports...)
		objects := []any{s}
		for _, f := range families {
			for _, one := range tt.slices(s, f) {
				one.Name += "-" + f.String()[3:]
				objects = append(objects, one)
			}
		}
		c.write(t, s.Name+".yaml", objects...)
	}
	c.run(t)
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			for _, f := range families {
				for _, e := range tt.expects {
					dst := netip.AddrPortFrom(clusterIP(1 + i)[f], e.port)
					if e.servers == nil {
						c.refused(t, c.client, e.network, dst)
					} else {
						c.served(t, c.client, e.network, dst, own, e.servers...)
					}
				}
			}
		})
	}
}

// TestConditions: which endpoints take new connections (A2.1, A2.2).
func TestConditions(t *testing.T) {
	t.Parallel()
	var (
		absent      = discoveryv1.EndpointConditions{}
		ready       = discoveryv1.EndpointConditions{Ready: new(true)}
		notReady    = discoveryv1.EndpointConditions{Ready: new(false)}
		terminating = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
		gone        = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false), Terminating: new(true)}
		published   = discoveryv1.EndpointConditions{Ready: new(true), Serving: new(false), Terminating: new(true)}
	)
	cases := []struct {
		name    string
		a, b, r discoveryv1.EndpointConditions
		servers []string
	}{
		{"A2.1 ready if nothing is said", absent, ready, notReady, []string{"a", "b"}},
		{"A2.2 terminating ones are not needed", ready, terminating, gone, []string{"a"}},
		{"A2.2 none is ready", terminating, notReady, gone, []string{"a"}},
		{"A2.2 none is ready, two serve", terminating, terminating, notReady, []string{"a", "b"}},
		{"A2.2 none serves", gone, notReady, notReady, nil},
		{"A2.8 ready while terminating", published, notReady, terminating, []string{"a"}},
	}
	c := newCluster(t)
	for i, tt := range cases {
		s := service(fmt.Sprint("case-", i), 1+i, everyProtocol(80)...)
		objects := withSlices(s, c.a, c.b, c.r)
		for _, o := range objects[1:] {
			one := o.(*discoveryv1.EndpointSlice)
			for j, conditions := range []discoveryv1.EndpointConditions{tt.a, tt.b, tt.r} {
				one.Endpoints[j].Conditions = conditions
			}
		}
		c.write(t, s.Name+".yaml", objects...)
	}
	c.run(t)
	for i, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, network string, f family) {
				dst := netip.AddrPortFrom(clusterIP(1 + i)[f], 80)
				if tt.servers == nil {
					c.refused(t, c.client, network, dst)
				} else {
					c.served(t, c.client, network, dst, own, tt.servers...)
				}
			})
		})
	}
}
