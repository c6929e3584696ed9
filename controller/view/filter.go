// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// Filter chooses Service ports. The zero Filter chooses all.
type Filter struct {
	Namespace string
	// Names chooses Services, or single ports of them: service, namespace/service, and
	// either with :port. None chooses all.
	Names    []string
	Protocol nft.Proto
	// Addr chooses those that have it as a frontend's address or an endpoint's, and
	// AddrPort those that have both. A node port has the addresses of the node.
	Addr     netip.Addr
	AddrPort netip.AddrPort
	// Unserved chooses those of which some clients are refused or dropped.
	Unserved bool
	// Text chooses those that have it in their name or in a frontend's address.
	Text string
}

// May reports whether a port of this name may be chosen: what does not depend on
// where it leads.
func (f *Filter) May(n Name) bool {
	switch {
	case f.Namespace != "" && f.Namespace != n.Namespace:
		return false
	case f.Protocol != 0 && f.Protocol != n.Protocol:
		return false
	}
	return len(f.Names) == 0 || slices.ContainsFunc(f.Names, n.is)
}

// is reports whether a pattern of Filter.Names means a port.
func (n Name) is(pattern string) bool {
	pattern, port, only := strings.Cut(pattern, ":")
	if only && port != n.Port {
		return false
	}
	namespace, service, both := strings.Cut(pattern, "/")
	if !both {
		return namespace == n.Service
	}
	return namespace == n.Namespace && service == n.Service
}

// Choose returns those ports of a view that the filter chooses. Where it asks for
// addresses of endpoints, those must have been read.
func (f *Filter) Choose(v *View) []ServicePort {
	var all []ServicePort
	for i := range v.Ports {
		if p := &v.Ports[i]; f.May(p.Name) && f.match(v, p) {
			all = append(all, *p)
		}
	}
	return all
}

func (f *Filter) match(v *View, p *ServicePort) bool {
	return (!f.Unserved || p.Worst() != Served) &&
		(f.Text == "" || p.mentions(f.Text)) &&
		(!f.Addr.IsValid() || p.has(v, f.Addr, 0)) &&
		(!f.AddrPort.IsValid() || p.has(v, f.AddrPort.Addr(), f.AddrPort.Port()))
}

// mentions reports whether a text is in the port's name or in a frontend's address.
func (p *ServicePort) mentions(text string) bool {
	return strings.Contains(p.Name.String(), text) || slices.ContainsFunc(p.Frontends, func(f Frontend) bool {
		return strings.Contains(f.String(), text)
	})
}

// has reports whether an address is a frontend's or an endpoint's; port 0 is any.
func (p *ServicePort) has(v *View, a netip.Addr, port uint16) bool {
	for i := range p.Frontends {
		f := &p.Frontends[i]
		at := f.Addr == a || f.Kind == NodePort && slices.Contains(v.NodeAddrs, a)
		if at && (port == 0 || port == f.Port) {
			return true
		}
		for _, w := range f.Ways() {
			if slices.ContainsFunc(w.Endpoints, func(e netip.AddrPort) bool { return e.Addr() == a && (port == 0 || port == e.Port()) }) {
				return true
			}
		}
	}
	return false
}

// Order is what Service ports are sorted by.
type Order string

// The orders. Where two ports are equal their names decide.
const (
	ByName        Order = "name"
	ByConnections Order = "connections" // most first
	ByEndpoints   Order = "endpoints"   // fewest first
	ByAddress     Order = "address"     // of the first frontend
	ByState       Order = "state"       // the worst first
)

// Orders lists them all.
var Orders = []Order{ByName, ByConnections, ByEndpoints, ByAddress, ByState}

// ParseOrder reads the name of an order.
func ParseOrder(s string) (Order, error) {
	if o := Order(s); slices.Contains(Orders, o) {
		return o, nil
	}
	words := make([]string, len(Orders))
	for i, o := range Orders {
		words[i] = string(o)
	}
	return "", fmt.Errorf("%q is no order: it is one of %s", s, strings.Join(words, ", "))
}

// Sort sorts Service ports.
func Sort(ports []ServicePort, by Order) {
	switch by {
	case ByConnections:
		sortBy(ports, (*ServicePort).Connections, func(a, b uint64) int { return cmp.Compare(b, a) })
	case ByEndpoints:
		sortBy(ports, (*ServicePort).Size, cmp.Compare[int])
	case ByAddress:
		sortBy(ports, func(p *ServicePort) netip.Addr { return p.Frontends[0].Addr }, netip.Addr.Compare)
	case ByState:
		sortBy(ports, (*ServicePort).Worst, func(a, b State) int { return cmp.Compare(b, a) })
	default:
		slices.SortFunc(ports, func(a, b ServicePort) int { return a.Name.Compare(b.Name) })
	}
}

// sortBy sorts by something of each port, which is worked out once.
func sortBy[K any](ports []ServicePort, key func(*ServicePort) K, compare func(a, b K) int) {
	type keyed struct {
		key  K
		port ServicePort
	}
	all := make([]keyed, len(ports))
	for i := range ports {
		all[i] = keyed{key(&ports[i]), ports[i]}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		return cmp.Or(compare(a.key, b.key), a.port.Name.Compare(b.port.Name))
	})
	for i := range all {
		ports[i] = all[i].port
	}
}
