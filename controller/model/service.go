// SPDX-License-Identifier: Apache-2.0

// Package model is the state of the world in our own values: Services,
// endpoints, the node, and the choice of endpoints for a Service port. It is pure
// and keeps of each API object only what the table depends on.
//
// What it does not know: nftables, or where objects come from.
package model

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that a Service port can have (corev1.Protocol).
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// ParseProtocol reads the API's word; nothing means TCP.
func ParseProtocol(p corev1.Protocol) (Protocol, error) {
	switch p {
	case corev1.ProtocolTCP, "":
		return TCP, nil
	case corev1.ProtocolUDP:
		return UDP, nil
	case corev1.ProtocolSCTP:
		return SCTP, nil
	}
	return 0, fmt.Errorf("protocol %q is not TCP, UDP or SCTP", p)
}

// Family is an IP family. Its values index arrays.
type Family uint8

// The IP families.
const (
	IPv4 Family = iota
	IPv6
	Families = 2
)

// String returns the API's word (corev1.IPFamily).
func (f Family) String() string { return [...]string{IPv4: "IPv4", IPv6: "IPv6"}[f] }

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Service is a Service that has addresses, as far as the table depends on it.
type Service struct {
	Name types.NamespacedName
	// UID tells it from others that have had its name; manifests may have none.
	UID types.UID
	// Created orders Services that claim the same frontend: the oldest wins.
	// Seconds since 1970; objects without a creation time are the oldest.
	Created    int64
	ClusterIPs [Families]netip.Addr
	// ExternalIPs and LoadBalancerIPs are of both families; a load balancer IP's
	// family may differ from the Service's own.
	ExternalIPs, LoadBalancerIPs []netip.Addr
	// SourceRanges say who may reach the load balancer IPs of a family.
	SourceRanges [Families]SourceRanges
	// InternalLocal and ExternalLocal are the traffic policies Local: of cluster
	// IPs (KEP-2086), and of everything else.
	InternalLocal, ExternalLocal bool
	// AffinityTimeout is how long after its last connection a client's next one,
	// to the same port, goes to the same endpoint (spec.sessionAffinity: ClientIP);
	// 0 is no affinity.
	AffinityTimeout time.Duration
	// HealthCheckNodePort is where a load balancer asks whether this node has
	// endpoints; 0 is nowhere.
	HealthCheckNodePort uint16
	Ports               []ServicePort
}

// ServicePort is one port of a Service.
type ServicePort struct {
	// Name joins the port with the EndpointSlices' ports; "" is a name too.
	Name     string
	Protocol Protocol
	// Port is served on the Service's addresses, NodePort on the node's; 0 is none.
	Port, NodePort uint16
}

// LabelServiceProxyName names the proxy that takes care of a Service, if that is not
// the cluster's own, which has no name (KEP-2447).
const LabelServiceProxyName = "service.kubernetes.io/service-proxy-name"

// FromService reads a Service. It returns nil if the Service is none that this proxy
// serves: headless, an ExternalName, or another proxy's; proxy is the name of this one,
// or empty. What is invalid in it is left out, which is all of it if its name is; each
// such part is an error that begins with the path of its field, all of them joined. The
// rest of the Service is good.
func FromService(s *corev1.Service, proxy string) (*Service, error) {
	if s.Spec.Type == corev1.ServiceTypeExternalName || s.Spec.ClusterIP == corev1.ClusterIPNone || s.Spec.ClusterIP == "" {
		return nil, nil
	}
	if name, named := s.Labels[LabelServiceProxyName]; name != proxy || named != (proxy != "") {
		return nil, nil
	}
	var p problems
	if err := checkName(s.Namespace); err != nil {
		return nil, fmt.Errorf("metadata.namespace: %w", err)
	}
	if err := checkName(s.Name); err != nil {
		return nil, fmt.Errorf("metadata.name: %w", err)
	}
	out := &Service{
		Name:            types.NamespacedName{Namespace: s.Namespace, Name: s.Name},
		UID:             s.UID,
		ClusterIPs:      clusterIPs(s, &p),
		ExternalIPs:     addresses(s.Spec.ExternalIPs, "spec.externalIPs", noHost, &p),
		LoadBalancerIPs: ingressIPs(s, &p),
	}
	out.InternalLocal = s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
	out.ExternalLocal = s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && external(s)
	out.SourceRanges = sourceRanges(s, &p)
	out.AffinityTimeout = affinityTimeout(s, &p)
	out.HealthCheckNodePort = healthCheckNodePort(s, &p)
	if !s.CreationTimestamp.IsZero() {
		out.Created = s.CreationTimestamp.Unix()
	}
	out.Ports = servicePorts(s, &p)
	return out, p.err()
}

// external reports whether the external traffic policy means anything: on other
// Services it may be a leftover of another type.
func external(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort:
		return true
	}
	return len(s.Spec.ExternalIPs) > 0
}

// number is a port's number of a protocol.
type number struct {
	protocol Protocol
	port     int32
}

// servicePorts reads the ports. A bad node port leaves the rest of its port good. What
// is there twice is looked up: an object has room for ten thousand ports.
func servicePorts(s *corev1.Service, p *problems) (ports []ServicePort) {
	first, nodePorts := make(map[number]int), make(map[number]bool)
	for i := range s.Spec.Ports {
		in := &s.Spec.Ports[i]
		field := func(name string) string { return fmt.Sprintf("spec.ports[%d].%s", i, name) }
		protocol, err := ParseProtocol(in.Protocol)
		at := number{protocol, in.Port}
		switch before, twice := first[at]; {
		case err != nil:
			p.add(field("protocol"), err.Error())
			continue
		case in.Name != "" && checkName(in.Name) != nil:
			p.add(field("name"), checkName(in.Name).Error())
			continue
		case in.Port < 1 || in.Port > 65535:
			p.add(field("port"), fmt.Sprintf("%d is not in 1-65535", in.Port))
			continue
		case twice:
			p.add(field("port"), fmt.Sprintf("%d is there twice, first in spec.ports[%d]", in.Port, before))
			continue
		}
		first[at] = i
		port := ServicePort{Name: in.Name, Protocol: protocol, Port: uint16(in.Port)}
		switch onNode := (number{protocol, in.NodePort}); {
		case s.Spec.Type != corev1.ServiceTypeNodePort && s.Spec.Type != corev1.ServiceTypeLoadBalancer:
		case in.NodePort < 0 || in.NodePort > 65535:
			p.add(field("nodePort"), fmt.Sprintf("%d is not in 1-65535", in.NodePort))
		case nodePorts[onNode]:
			p.add(field("nodePort"), fmt.Sprintf("%d is there twice, the first of them counts", in.NodePort))
		case in.NodePort != 0:
			nodePorts[onNode] = true
			port.NodePort = uint16(in.NodePort)
		}
		ports = append(ports, port)
	}
	return ports
}

// clusterIPs finds the cluster IP of each family. Old objects have no clusterIPs
// and families, only the one address.
func clusterIPs(s *corev1.Service, p *problems) (ips [Families]netip.Addr) {
	all := s.Spec.ClusterIPs
	if len(all) == 0 {
		all = []string{s.Spec.ClusterIP}
	}
	for i, a := range addresses(all, "spec.clusterIPs", nobodys, p) {
		f := FamilyOf(a)
		if ips[f].IsValid() {
			p.add(fmt.Sprintf("spec.clusterIPs[%d]", i), fmt.Sprintf("%s is a second address of its family", a))
			continue
		}
		ips[f] = a
	}
	return ips
}

// ingressIPs are the load balancer's addresses that packets reach this node with.
// Names are left out, and addresses whose packets the load balancer translates
// (ipMode Proxy, KEP-1860).
func ingressIPs(s *corev1.Service, p *problems) []netip.Addr {
	var ips []string
	for i := range s.Status.LoadBalancer.Ingress {
		in := &s.Status.LoadBalancer.Ingress[i]
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) {
			ips = append(ips, in.IP)
		}
	}
	return addresses(ips, "status.loadBalancer.ingress", nobodys, p)
}

// addresses reads addresses, each once, but those that refused says something of. Blank
// ones are none, as in kube-proxy.
func addresses(in []string, field string, refused func(netip.Addr) string, p *problems) []netip.Addr {
	var out []netip.Addr
	seen := make(map[netip.Addr]bool, len(in))
	for i, s := range in {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		a, err := parseAddr(s)
		if err == nil && refused(a) != "" {
			err = fmt.Errorf("%s is %s", a, refused(a))
		}
		if err != nil {
			p.add(fmt.Sprintf("%s[%d]", field, i), err.Error())
			continue
		}
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}

// parseAddr reads an address that packets can be sent to.
func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	if a = a.Unmap(); a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q has a zone", s)
	}
	if a.IsUnspecified() {
		return netip.Addr{}, fmt.Errorf("%q is not an address of anything", s)
	}
	return a, nil
}

// problems collects what is invalid in an object, each with the path of its field.
type problems struct{ errs []error }

func (p *problems) add(field, what string) {
	p.errs = append(p.errs, fmt.Errorf("%s: %s", field, what))
}

func (p *problems) err() error { return errors.Join(p.errs...) }
