// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Endpoint is one endpoint of an EndpointSlice.
type Endpoint struct {
	Addr netip.Addr
	// Ready endpoints take new connections. Serving and terminating ones do when
	// there is no ready one (KEP-1669).
	Ready, Serving, Terminating bool
	// Local endpoints run on this node.
	Local bool
	// Hints say for whom the EndpointSlice controller means the endpoint (KEP-2433,
	// KEP-3015).
	Hints Hints
}

// Hints are an endpoint's topology hints.
type Hints struct {
	// Nodes says whether there are node hints, ThisNode whether this node is one.
	Nodes, ThisNode bool
	// zones are the zone hints, with a comma behind each: they repeat in all
	// endpoints, so that one copy serves.
	zones unique.Handle[string]
}

// Zones reports whether there are zone hints.
func (h Hints) Zones() bool { return h.zones != unique.Handle[string]{} }

// Zone reports whether a zone is among the zone hints.
func (h Hints) Zone(zone string) bool {
	if !h.Zones() || zone == "" {
		return false
	}
	for z := range strings.SplitSeq(h.zones.Value(), ",") {
		if z == zone {
			return true
		}
	}
	return false
}

// ZoneNames lists the zone hints.
func (h Hints) ZoneNames() []string {
	if !h.Zones() {
		return nil
	}
	return strings.Split(strings.TrimSuffix(h.zones.Value(), ","), ",")
}

func hints(in *discoveryv1.EndpointHints, node string) (h Hints) {
	if in == nil {
		return h
	}
	for _, n := range in.ForNodes {
		h.Nodes = true
		h.ThisNode = h.ThisNode || node != "" && n.Name == node
	}
	var zones strings.Builder
	for _, z := range in.ForZones {
		zones.WriteString(z.Name + ",")
	}
	if zones.Len() > 0 {
		h.zones = unique.Make(zones.String())
	}
	return h
}

// SlicePort is a port of an EndpointSlice; endpoints of one Service port may
// listen on different numbers in different slices.
type SlicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// compare orders ports by name and protocol: those of a Service are looked up.
func (p SlicePort) compare(name string, protocol Protocol) int {
	return cmp.Or(strings.Compare(p.Name, name), cmp.Compare(p.Protocol, protocol))
}

// Slice is an EndpointSlice.
type Slice struct {
	Name      types.NamespacedName
	Service   types.NamespacedName
	Family    Family
	Ports     []SlicePort // sorted by name and protocol
	Endpoints []Endpoint
	// Triggered is when the pod or Service changed that the EndpointSlice controller
	// last changed the slice for; zero if it does not say.
	Triggered time.Time
}

// FromSlice reads an EndpointSlice; node is the name of this node. It returns nil
// if the slice is none that a proxy uses: it belongs to no Service, or holds
// names instead of addresses. What is invalid in it is left out; each such part is
// an error that begins with the path of its field, all of them joined.
//
// As in kube-proxy, only the first address of an endpoint counts, and a port
// without a name or number is none (discovery.k8s.io/v1, EndpointPort).
func FromSlice(s *discoveryv1.EndpointSlice, node string) (*Slice, error) {
	service := s.Labels[discoveryv1.LabelServiceName]
	if service == "" {
		return nil, nil
	}
	out := &Slice{
		Name:    types.NamespacedName{Namespace: s.Namespace, Name: s.Name},
		Service: types.NamespacedName{Namespace: s.Namespace, Name: service},
	}
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4:
		out.Family = IPv4
	case discoveryv1.AddressTypeIPv6:
		out.Family = IPv6
	default:
		return nil, nil
	}
	var p problems
	out.Triggered = triggered(s, &p)
	for i := range s.Ports {
		if port, ok := slicePort(s, i, &p); ok {
			out.Ports = append(out.Ports, port)
		}
	}
	slices.SortStableFunc(out.Ports, func(a, b SlicePort) int { return a.compare(b.Name, b.Protocol) })
	out.Endpoints = make([]Endpoint, 0, len(s.Endpoints))
	for i := range s.Endpoints {
		e, err := endpoint(&s.Endpoints[i], out.Family, node)
		if err != nil {
			p.add(fmt.Sprintf("endpoints[%d].addresses", i)+place(&s.Endpoints[i]), err.Error())
			continue
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	return out, p.err()
}

func triggered(s *discoveryv1.EndpointSlice, p *problems) time.Time {
	text, ok := s.Annotations[corev1.EndpointsLastChangeTriggerTime]
	if !ok {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		p.add("metadata.annotations["+corev1.EndpointsLastChangeTriggerTime+"]", fmt.Sprintf("%.40q is not a time", text))
	}
	return at
}

func slicePort(s *discoveryv1.EndpointSlice, i int, p *problems) (SlicePort, bool) {
	in := &s.Ports[i]
	if in.Name == nil || in.Port == nil || *in.Port == 0 {
		return SlicePort{}, false
	}
	field := fmt.Sprintf("ports[%d]", i)
	port := SlicePort{Name: *in.Name, Protocol: TCP, Port: uint16(*in.Port)}
	if in.Protocol != nil {
		var err error
		if port.Protocol, err = ParseProtocol(*in.Protocol); err != nil {
			p.add(field+".protocol", err.Error())
			return SlicePort{}, false
		}
	}
	if *in.Port < 1 || *in.Port > 65535 {
		p.add(field+".port", fmt.Sprintf("%d is not in 1-65535", *in.Port))
		return SlicePort{}, false
	}
	return port, true
}

// place is where among an endpoint's addresses the one is that counts.
func place(in *discoveryv1.Endpoint) string {
	if len(in.Addresses) == 0 {
		return ""
	}
	return "[0]"
}

func endpoint(in *discoveryv1.Endpoint, f Family, node string) (Endpoint, error) {
	if len(in.Addresses) == 0 {
		return Endpoint{}, fmt.Errorf("no address")
	}
	a, err := parseAddr(in.Addresses[0])
	if err != nil {
		return Endpoint{}, err
	}
	if FamilyOf(a) != f {
		return Endpoint{}, fmt.Errorf("%s is not of the slice's address type", a)
	}
	if why := noHost(a); why != "" {
		return Endpoint{}, fmt.Errorf("%s is %s", a, why)
	}
	is := func(condition *bool, absent bool) bool {
		if condition == nil {
			return absent
		}
		return *condition
	}
	return Endpoint{
		Addr:        a,
		Ready:       is(in.Conditions.Ready, true),
		Serving:     is(in.Conditions.Serving, true),
		Terminating: is(in.Conditions.Terminating, false),
		Local:       node != "" && in.NodeName != nil && *in.NodeName == node,
		Hints:       hints(in.Hints, node),
	}, nil
}
