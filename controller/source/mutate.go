// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// This file holds the ways in which Events changes Services and slices.

// service makes a Service that was not there, or changes one that was.
func (w *world) service() *corev1.Service {
	i := w.IntN(eventServices)
	old, ok := w.services[i]
	var s *corev1.Service
	if ok {
		s = old.DeepCopy()
		w.changeService(s)
	} else {
		s = &corev1.Service{ObjectMeta: w.birth(eventService(i))}
		s.Spec.Type = corev1.ServiceTypeClusterIP
		w.setClusterIPs(s)
		w.setPorts(s)
		for range w.IntN(4) {
			w.changeService(s)
		}
	}
	w.settle(s)
	w.services[i] = s
	return s
}

// changeService changes one thing, perhaps to what it was.
func (w *world) changeService(s *corev1.Service) {
	spec := &s.Spec
	switch w.IntN(11) {
	case 0:
		spec.Type = oneOf(w, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer)
	case 1:
		w.setPorts(s)
	case 2:
		w.setClusterIPs(s)
	case 3:
		spec.ExternalIPs = w.addresses("192.0.2.%d", "2001:db8::%d")
	case 4:
		s.Status.LoadBalancer.Ingress = nil
		for _, ip := range w.addresses("198.51.100.%d", "2001:db8:1::%d") {
			mode := oneOf(w, nil, new(corev1.LoadBalancerIPModeVIP), new(corev1.LoadBalancerIPModeProxy))
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip, IPMode: mode})
		}
	case 5:
		spec.InternalTrafficPolicy = oneOf(w, nil, new(corev1.ServiceInternalTrafficPolicyCluster), new(corev1.ServiceInternalTrafficPolicyLocal))
	case 6:
		spec.ExternalTrafficPolicy = oneOf(w, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	case 7:
		spec.SessionAffinity = oneOf(w, corev1.ServiceAffinityNone, corev1.ServiceAffinityClientIP)
	case 8:
		spec.LoadBalancerSourceRanges = oneOf(w, nil, []string{"10.0.0.0/8"}, []string{"10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32"},
			[]string{"2001:db8::/32"}, []string{"0.0.0.0/0"})
	case 9:
		spec.HealthCheckNodePort = oneOf(w, int32(0), 32001, 32002)
	case 10:
		s.Labels = oneOf(w, nil, nil, nil, map[string]string{labelServiceProxyName: "another"})
	}
}

// settle makes a Service agree with itself again.
func (w *world) settle(s *corev1.Service) {
	spec := &s.Spec
	for i := range spec.Ports {
		p := &spec.Ports[i]
		switch {
		case spec.Type == corev1.ServiceTypeClusterIP:
			p.NodePort = 0
		case p.NodePort == 0:
			p.NodePort = 30000 + int32(w.IntN(6)) // few, so that Services share them
		}
	}
	if spec.Type != corev1.ServiceTypeLoadBalancer || spec.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal {
		spec.HealthCheckNodePort = 0
	}
	spec.SessionAffinityConfig = nil
	if spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{
			TimeoutSeconds: new(oneOf(w, int32(60), corev1.DefaultClientIPServiceAffinitySeconds))}}
	}
}

// setClusterIPs gives a Service addresses that others have, had or will have.
func (w *world) setClusterIPs(s *corev1.Service) {
	n := w.IntN(eventServices + 4)
	v4, v6 := fmt.Sprintf("10.96.0.%d", n+1), fmt.Sprintf("fd00:96::%x", n+1)
	s.Spec.ClusterIPs = oneOf(w, []string{v4}, []string{v6}, []string{v4, v6}, []string{v6, v4})
	s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	s.Spec.IPFamilies = nil
	for _, ip := range s.Spec.ClusterIPs {
		s.Spec.IPFamilies = append(s.Spec.IPFamilies, ipFamily(ip == v6))
	}
}

// setPorts gives a Service up to three ports. Two may have the same number, if
// their protocols differ; the only one may go without a name.
func (w *world) setPorts(s *corev1.Service) {
	s.Spec.Ports = nil
	names := []string{"http", "dns", "metrics"}
	w.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:1+w.IntN(3)] {
		p := corev1.ServicePort{
			Name:     name,
			Protocol: w.protocol(name),
			Port:     oneOf(w, int32(53), 80, 443),
		}
		taken := slices.ContainsFunc(s.Spec.Ports, func(o corev1.ServicePort) bool {
			return o.Port == p.Port && o.Protocol == p.Protocol
		})
		if !taken {
			s.Spec.Ports = append(s.Spec.Ports, p)
		}
	}
	if len(s.Spec.Ports) == 1 && w.chance(3) {
		s.Spec.Ports[0].Name = ""
	}
}

// addresses returns none to two addresses out of four in each family.
func (w *world) addresses(v4, v6 string) []string {
	var all []string
	for range w.IntN(3) {
		ip := fmt.Sprintf(oneOf(w, v4, v6), 1+w.IntN(4))
		if !slices.Contains(all, ip) {
			all = append(all, ip)
		}
	}
	return all
}

// serviceCIDR makes, changes or deletes one of three ServiceCIDRs, which overlap.
// Some hold only some of the cluster IPs.
func (w *world) serviceCIDR() Event {
	name := oneOf(w, "kubernetes", "more", "other")
	if w.chance(3) {
		return Event{DeleteServiceCIDR: name}
	}
	return Event{ServiceCIDR: &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: networkingv1.ServiceCIDRSpec{CIDRs: oneOf(w, []string{"10.96.0.0/16"}, []string{"10.96.0.0/16", "fd00:96::/112"},
			[]string{"fd00:96::/124"}, []string{"10.96.0.8/29", "fd00:96::/64"}, []string{"10.64.0.0/16"})},
	}}
}

// slice makes a slice that was not there, or changes one that was. Nothing says
// that its Service exists.
func (w *world) slice() *discoveryv1.EndpointSlice {
	service, v6 := eventService(w.IntN(eventServices)), w.chance(3)
	name := service
	name.Name = fmt.Sprintf("%s-%s-%d", service.Name, map[bool]string{false: "v4", true: "v6"}[v6], w.IntN(eventSlices))
	old, ok := w.slices[name]
	var s *discoveryv1.EndpointSlice
	if ok {
		s = old.DeepCopy()
	} else {
		s = &discoveryv1.EndpointSlice{ObjectMeta: w.birth(name), AddressType: discoveryv1.AddressType(ipFamily(v6))}
		s.Labels = map[string]string{discoveryv1.LabelServiceName: service.Name}
		w.setSlicePorts(s)
		for range w.IntN(6) {
			w.addEndpoint(s, v6)
		}
	}
	w.changeSlice(s, v6)
	w.slices[name] = s
	return s
}

func (w *world) changeSlice(s *discoveryv1.EndpointSlice, v6 bool) {
	n := len(s.Endpoints)
	switch choice := w.IntN(10); {
	case n == 0 || choice < 3:
		w.addEndpoint(s, v6)
	case choice < 5:
		i := w.IntN(n)
		s.Endpoints = slices.Delete(s.Endpoints, i, i+1)
	case choice < 8:
		w.flip(&s.Endpoints[w.IntN(n)])
	case choice < 9:
		w.setSlicePorts(s)
	default:
		s.Endpoints = w.sibling(s)
	}
}

// sibling returns the endpoints of another slice of the same Service and family,
// as when slices are being merged; none if there is no other.
func (w *world) sibling(s *discoveryv1.EndpointSlice) []discoveryv1.Endpoint {
	name := nameOf(s)
	name.Name = name.Name[:len(name.Name)-1] + fmt.Sprint(w.IntN(eventSlices))
	if other, ok := w.slices[name]; ok && name.Name != s.Name {
		return other.DeepCopy().Endpoints
	}
	return nil
}

func (w *world) addEndpoint(s *discoveryv1.EndpointSlice, v6 bool) {
	pod := w.IntN(eventEndpoints)
	e := (&Synthetic{Nodes: eventNodes}).endpoint(pod, v6)
	if !w.chance(3) {
		w.flip(&e)
	}
	s.Endpoints = append(s.Endpoints, e)
}

// flip changes the state that an endpoint is in.
func (w *world) flip(e *discoveryv1.Endpoint) {
	yes, no := new(true), new(false)
	states := []discoveryv1.EndpointConditions{
		{},
		{Ready: yes, Serving: yes, Terminating: no},
		{Ready: no, Serving: no, Terminating: no},
		{Ready: no, Serving: yes, Terminating: yes},
		{Ready: no, Serving: no, Terminating: yes},
		{Ready: yes, Serving: yes, Terminating: yes}, // publishNotReadyAddresses
	}
	e.Conditions = *states[w.IntN(len(states))].DeepCopy()
	e.Hints = oneOf(w, nil,
		&discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-0"}}},
		&discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-1"}}},
		&discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-0"}}, ForNodes: []discoveryv1.ForNode{{Name: "node-0"}}})
}

// setSlicePorts gives a slice ports of the names that Services use, and one of
// several numbers for each, since slices of one Service may differ in that.
func (w *world) setSlicePorts(s *discoveryv1.EndpointSlice) {
	s.Ports = nil
	for _, name := range []string{"", "http", "dns", "metrics"} {
		if w.chance(8) {
			continue
		}
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{
			Name: new(name), Protocol: new(w.protocol(name)), Port: new(oneOf(w, int32(8080), 8080, 9090))})
	}
}

// protocol is what a port of that name speaks, most of the time: a Service port
// meets its endpoints by name and protocol.
func (w *world) protocol(name string) corev1.Protocol {
	switch {
	case w.chance(5):
		return oneOf(w, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	case name == "dns":
		return corev1.ProtocolUDP
	default:
		return corev1.ProtocolTCP
	}
}
