// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// plan says what a Service and its slices are like. Its zero value, but for name and
// index, is a dual-stack Service of type ClusterIP with port 80 of TCP and UDP and no
// slice.
type plan struct {
	name   string
	index  int  // of its addresses and node ports, from 1 to 250
	absent bool // the Service has been deleted; the rest is what it was

	typ      corev1.ServiceType
	families string // 46 if empty; 4, 6, 64
	ports    []port // nil = TCP and UDP 80 to 8080
	headless bool
	labels   map[string]string
	etp, itp bool     // the policy is Local
	external []string // external IPs; "own" is one of each family for itself
	ingress  []ingress
	ranges   []string // loadBalancerSourceRanges
	affinity int32    // seconds; 0 = none

	slices [][]endpoint                     // of each family, one element for each
	tweak  func(*discoveryv1.EndpointSlice) // changes the slices; may be nil
}

const proxyNameLabel = "service.kubernetes.io/service-proxy-name"

type port struct {
	name           string
	protocol       corev1.Protocol
	number, target int32
	nodePort       int32 // 0 = one of its own
}

type ingress struct {
	ip   string // "own" is one of each family for itself
	host string
	mode corev1.LoadBalancerIPMode // may be empty
}

// endpoint is one of a slice. Who is neither ready nor anything else is ready.
type endpoint struct {
	pod          string // or host-0, host-1: a pod with the node's network
	state        state
	zones, nodes []string // hints
	homeless     bool     // without a node name
}

// state is what an endpoint's conditions say.
type state int

const (
	ready       state = iota
	unset             // no condition is there
	starting          // not ready
	terminating       // it still serves
	gone              // it terminates and serves no more
	published         // it terminates, and its Service publishes addresses that are not ready
)

func (s state) String() string {
	return []string{"ready", "unset", "starting", "terminating", "gone", "published"}[s]
}

func (s state) conditions() discoveryv1.EndpointConditions {
	yes, no := new(true), new(false)
	return []discoveryv1.EndpointConditions{
		ready:       {Ready: yes, Serving: yes, Terminating: no},
		unset:       {},
		starting:    {Ready: no, Serving: no, Terminating: no},
		terminating: {Ready: no, Serving: yes, Terminating: yes},
		gone:        {Ready: no, Serving: no, Terminating: yes},
		published:   {Ready: yes, Serving: yes, Terminating: yes},
	}[s]
}

// families are the indexes of what has an address in each, IPv4 first.
var families = [2]corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}

func (p *plan) clusterIPs() []netip.Addr {
	return addrs(fmt.Sprintf("10.96.1.%d", p.index), fmt.Sprintf("fd00:10:96::1%02x", p.index))
}

func (p *plan) externalIPs() []netip.Addr {
	return addrs(fmt.Sprintf("203.0.113.%d", p.index), fmt.Sprintf("2001:db8:113::%x", p.index))
}

func (p *plan) balancerIPs() []netip.Addr {
	return addrs(fmt.Sprintf("198.18.0.%d", p.index), fmt.Sprintf("2001:db8:18::%x", p.index))
}

// stack lists the Service's families, the primary one first.
func (p *plan) stack() (indexes []int) {
	for _, c := range cmp.Or(p.families, "46") {
		indexes = append(indexes, map[rune]int{'4': 0, '6': 1}[c])
	}
	return indexes
}

func (p *plan) portList() []port {
	all := slices.Clone(p.ports)
	if all == nil {
		all = []port{{name: "tcp", protocol: corev1.ProtocolTCP, number: 80}, {name: "udp", protocol: corev1.ProtocolUDP, number: 80}}
	}
	for i := range all {
		// One number for ports that differ in their protocol only.
		first := slices.IndexFunc(all, func(o port) bool { return o.number == all[i].number })
		all[i].nodePort = cmp.Or(all[i].nodePort, int32(30000+p.index*4+first))
		all[i].target = cmp.Or(all[i].target, 8080)
	}
	return all
}

// isServed reports whether the Service is there for the proxies.
func (p *plan) isServed() bool { return !p.absent && p.labels[proxyNameLabel] == "" }

// has reports whether a pod is among the endpoints.
func (p *plan) has(pod string) bool {
	return slices.ContainsFunc(slices.Concat(p.slices...), func(e endpoint) bool { return e.pod == pod })
}

// isHomeless reports whether a pod is an endpoint without a node name.
func (p *plan) isHomeless(pod string) bool {
	return slices.ContainsFunc(slices.Concat(p.slices...), func(e endpoint) bool { return e.pod == pod && e.homeless })
}

// service returns the Service without its status.
func (p *plan) service() *corev1.Service {
	s := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: p.name, Labels: p.labels},
	}
	spec := &s.Spec
	spec.Type = cmp.Or(p.typ, corev1.ServiceTypeClusterIP)
	isExposed := spec.Type == corev1.ServiceTypeNodePort || spec.Type == corev1.ServiceTypeLoadBalancer
	for _, port := range p.portList() {
		o := corev1.ServicePort{Name: port.name, Protocol: port.protocol, Port: port.number, TargetPort: intstr.FromInt32(port.target)}
		if isExposed {
			o.NodePort = port.nodePort
		}
		spec.Ports = append(spec.Ports, o)
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		spec.ExternalName = "example.com"
		return s
	}
	p.setClusterIPs(spec)
	spec.ExternalIPs = p.ownOr(p.external, p.externalIPs())
	spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	if p.itp {
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	}
	if isExposed || len(spec.ExternalIPs) > 0 {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
		if p.etp {
			spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		spec.LoadBalancerSourceRanges = p.ranges
		if p.etp {
			spec.HealthCheckNodePort = int32(31200 + p.index)
		}
	}
	spec.SessionAffinity = corev1.ServiceAffinityNone
	if p.affinity > 0 {
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(p.affinity)}}
	}
	return s
}

func (p *plan) setClusterIPs(spec *corev1.ServiceSpec) {
	spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
	if len(p.stack()) == 1 {
		spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
	}
	for _, f := range p.stack() {
		spec.IPFamilies = append(spec.IPFamilies, families[f])
		spec.ClusterIPs = append(spec.ClusterIPs, p.clusterIPs()[f].String())
	}
	if p.headless {
		spec.ClusterIPs = []string{corev1.ClusterIPNone}
	}
	spec.ClusterIP = spec.ClusterIPs[0]
}

// ownOr replaces the word "own" by the addresses.
func (p *plan) ownOr(texts []string, own []netip.Addr) (all []string) {
	for _, text := range texts {
		if text != "own" {
			all = append(all, text)
			continue
		}
		for _, a := range own {
			all = append(all, a.String())
		}
	}
	return all
}

// status returns the ingress of a load balancer.
func (p *plan) status() []corev1.LoadBalancerIngress {
	all := []corev1.LoadBalancerIngress{}
	for _, in := range p.ingress {
		if in.host != "" {
			all = append(all, corev1.LoadBalancerIngress{Hostname: in.host})
			continue
		}
		for _, ip := range p.ownOr([]string{in.ip}, p.balancerIPs()) {
			mode := cmp.Or(in.mode, corev1.LoadBalancerIPModeVIP)
			all = append(all, corev1.LoadBalancerIngress{IP: ip, IPMode: &mode})
		}
	}
	return all
}

// endpointSlices returns the Service's slices in both families; an endpoint has
// an address in each.
func (p *plan) endpointSlices() (all []*discoveryv1.EndpointSlice) {
	for i, endpoints := range p.slices {
		for f := range families {
			s := &discoveryv1.EndpointSlice{
				TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
				ObjectMeta: metav1.ObjectMeta{
					Namespace: metav1.NamespaceDefault,
					Name:      fmt.Sprintf("%s-%s-%d", p.name, strings.ToLower(string(families[f])), i),
					Labels:    map[string]string{discoveryv1.LabelServiceName: p.name},
				},
				AddressType: discoveryv1.AddressType(families[f]),
				Endpoints:   []discoveryv1.Endpoint{},
			}
			if p.headless {
				s.Labels[corev1.IsHeadlessService] = "" // as the controller does
			}
			for _, port := range p.portList() {
				s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(port.name), Protocol: new(port.protocol), Port: new(port.target)})
			}
			for _, e := range endpoints {
				s.Endpoints = append(s.Endpoints, e.in(f))
			}
			if p.tweak != nil {
				p.tweak(s)
			}
			all = append(all, s)
		}
	}
	return all
}

// in returns the endpoint as it is in a slice of a family.
func (e endpoint) in(f int) discoveryv1.Endpoint {
	node := nodeName
	var address netip.Addr
	switch {
	case e.pod == "host-0":
		address = nodeAddrs[f]
	case e.pod == "host-1":
		address, node = peerAddrs[f], peerName
	default:
		address = podAddrs(slices.Index(podNames, e.pod))[f]
		if !onThisNode(e.pod) {
			node = peerName
		}
	}
	o := discoveryv1.Endpoint{Addresses: []string{address.String()}, Conditions: e.state.conditions()}
	if !e.homeless {
		o.NodeName = &node
	}
	if len(e.zones)+len(e.nodes) > 0 {
		o.Hints = &discoveryv1.EndpointHints{}
		for _, z := range e.zones {
			o.Hints.ForZones = append(o.Hints.ForZones, discoveryv1.ForZone{Name: z})
		}
		for _, n := range e.nodes {
			o.Hints.ForNodes = append(o.Hints.ForNodes, discoveryv1.ForNode{Name: n})
		}
	}
	return o
}
