// SPDX-License-Identifier: Apache-2.0

// Package shape describes clusters by how many Services of how many endpoints they
// have, makes their objects, and writes them to an API server, or to its store.
//
// The objects are the same for whoever asks twice, and addresses are computed, so that
// a prober needs no list:
//
//	10.0.0.0/13    ClusterIPs: 10.0.0.1 default/kubernetes, 10.0.0.10 kube-dns,
//	               10.0.2.0 and on the watched ones, 10.1.0.0 and on all others
//	10.128.0.0/9   pods: 10.128.0.1 and on the endpoints, 10.190.0.0/16 those of
//	               kube-dns, 10.191.0.0/16 those of the watched; the upper half has
//	               no endpoints
package shape

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// Ranges of addresses.
var (
	ServiceCIDR  = netip.MustParsePrefix("10.0.0.0/13")
	ClusterCIDR  = netip.MustParsePrefix("10.128.0.0/9")
	EndpointCIDR = netip.MustParsePrefix("10.128.0.0/10") // of all endpoints, nobody else's

	firstService  = netip.MustParseAddr("10.1.0.0")
	firstWatched  = netip.MustParseAddr("10.0.2.0")
	firstEndpoint = netip.MustParseAddr("10.128.0.1")
)

const (
	Port       = 80   // of each Service
	TargetPort = 8080 // of each endpoint
	// perSlice is how many endpoints an EndpointSlice holds at most, by default of
	// kube-controller-manager.
	perSlice = 100
)

// Shape is how large a cluster is.
type Shape struct {
	Name      string
	Services  int
	Endpoints int // in all
}

// exact are shapes whose number of endpoints is not what their names say: that of
// a report from the field.
var exact = map[string]int{"5006x50": 250_011}

// limit is where the ranges of addresses end.
const limit = 3 << 20

// Parse reads "NxM": N Services of M endpoints each.
func Parse(text string) (Shape, error) {
	s := Shape{Name: text}
	var each int
	if n, err := fmt.Sscanf(text, "%dx%d", &s.Services, &each); n != 2 || fmt.Sprintf("%dx%d", s.Services, each) != text {
		return s, fmt.Errorf("shape %q: want Services x endpoints of each, such as 1000x10: %w", text, err)
	}
	s.Endpoints = s.Services * each
	if n, ok := exact[text]; ok {
		s.Endpoints = n
	}
	if s.Services < 1 || s.Services > 300_000 || each < 0 || each > limit || s.Endpoints > limit {
		return s, fmt.Errorf("shape %q: want 1 to 300000 Services, and %d endpoints in all at most", text, limit)
	}
	return s, nil
}

// ParseAll reads a list with commas.
func ParseAll(text string) (all []Shape, err error) {
	for word := range strings.SplitSeq(text, ",") {
		s, err := Parse(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// Endpoint is an address of the shape's endpoints, counted over all Services.
func Endpoint(i int) netip.Addr { return plus(firstEndpoint, i) }

// EndpointsOf returns which endpoints a Service has: n of them from the first. The
// Services have alike many, but for one.
func (s Shape) EndpointsOf(service int) (first, n int) {
	each, more := s.Endpoints/s.Services, s.Endpoints%s.Services
	if service < more {
		return service * (each + 1), each + 1
	}
	return service*each + more, each
}

// Frontend is where a Service is asked.
func (s Shape) Frontend(service int) netip.AddrPort {
	return netip.AddrPortFrom(plus(firstService, service), Port)
}

// ServiceAt is the reverse of Frontend.
func (s Shape) ServiceAt(addr netip.Addr) (service int, ok bool) {
	if !addr.Is4() {
		return 0, false
	}
	service = number(addr) - number(firstService)
	return service, service >= 0 && service < s.Services
}

func number(a netip.Addr) int {
	b := a.As4()
	return int(binary.BigEndian.Uint32(b[:]))
}

func plus(a netip.Addr, n int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(number(a)+n))
	return netip.AddrFrom4(b)
}
