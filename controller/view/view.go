// SPDX-License-Identifier: Apache-2.0

// Package view turns what the kernel's tables hold back into Service ports: the
// reverse of package compile, for people and programs that look. It is pure, and
// knows nothing but the tables: what it shows is what packets meet, whatever the
// cluster says.
//
// What the tables do not tell, it does not: an external IP and the address of a load
// balancer look alike, and so does a Service port whose name is too long for a
// comment and another one that begins like it (nft.CommentLimit).
package view

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// Name names a Service port. It is comparable.
type Name struct {
	Namespace, Service string
	Port               string // the port's name, "" if it has none
	Protocol           nft.Proto
}

// NameOf returns whose frontend an element is; ok is false if it does not say so.
func NameOf(e nft.Element) (n Name, ok bool) {
	n = Name{Protocol: e.Key.Proto}
	comment := e.Value.Comment
	if n.Namespace, comment, ok = strings.Cut(comment, "/"); !ok {
		return Name{}, false
	}
	n.Service, n.Port, _ = strings.Cut(comment, ":")
	return n, n.Namespace != "" && n.Service != ""
}

// String returns namespace/service:port, as in the table's comments.
func (n Name) String() string {
	s := n.Namespace + "/" + n.Service
	if n.Port != "" {
		s += ":" + n.Port
	}
	return s
}

// Compare orders names by namespace, service, port and protocol.
func (n Name) Compare(o Name) int {
	return cmp.Or(
		strings.Compare(n.Namespace, o.Namespace),
		strings.Compare(n.Service, o.Service),
		strings.Compare(n.Port, o.Port),
		cmp.Compare(n.Protocol, o.Protocol),
	)
}

// View is what the tables of all families say.
type View struct {
	// Ports are sorted by name.
	Ports []ServicePort
	// NodeAddrs are the addresses that node ports are served on. A family that
	// serves them on all of the host's addresses has none here.
	NodeAddrs []netip.Addr
	// Unnamed is how many frontends do not say whose they are: we make none.
	Unnamed int

	here map[netip.Addr]struct{}
}

// Here reports whether an endpoint's address is a pod's on this node.
func (v *View) Here(a netip.Addr) bool {
	_, ok := v.here[a]
	return ok
}

// ServicePort is one port of a Service, with its frontends of all families.
type ServicePort struct {
	Name
	// Frontends are sorted by kind, family and address.
	Frontends []Frontend
	// Affinity is nil unless clients are remembered.
	Affinity *Affinity
}

// Affinity is a Service port's session affinity.
type Affinity struct {
	Timeout time.Duration
	// Clients is how many clients the kernel remembers in the family that has most
	// of them; -1 if it does not tell. Those that have expired may count for a while.
	Clients int
}

// Full reports whether new clients are not remembered for want of room.
func (a *Affinity) Full() bool { return a.Clients >= nft.AffinitySize }

// Frontend is what clients address, and where it leads.
type Frontend struct {
	Kind   Kind
	Family nft.Family
	// Addr is not valid for a node port, which has the addresses of the node.
	Addr netip.Addr
	Port uint16
	// Way is that of all clients. If Local is there it is that of pods on this node
	// and of the node itself, and Local is that of everybody else: the external
	// traffic policy Local.
	Way
	Local *Way
	// Restricted says that only Sources are let in.
	Restricted bool
	Sources    []netip.Prefix
}

// Way is where a frontend leads.
type Way struct {
	State State
	// Endpoints are in the order of their slots. Frontends share slices: do not
	// write to them. It is nil if endpoints were not read.
	Endpoints []netip.AddrPort
	// Draws is from how many slots is drawn: those above the number of endpoints are
	// empty (nft.Modulus).
	Draws uint32
	// Torn says that endpoints were read and do not agree with Draws: the table was
	// changed meanwhile, or is damaged.
	Torn bool
	// Masquerade says of whom endpoints see the node's address. A pod that reaches
	// itself is always masqueraded.
	Masquerade Masquerade
	// Packets are those that were counted, first packets of connections: of new
	// connections if the frontend is served, else of those that were dropped. What
	// is refused is not counted.
	Packets uint64
}

// Kind is what a frontend is, as far as the table tells.
type Kind uint8

// The kinds of frontends.
const (
	_ Kind = iota
	ClusterIP
	External // an external IP or the address of a load balancer
	NodePort
)

// String returns the kind's name in the words of the API.
func (k Kind) String() string {
	if k > NodePort {
		return "unknown"
	}
	return [...]string{"unknown", "ClusterIP", "External", "NodePort"}[k]
}

// State is what becomes of new connections to a frontend.
type State uint8

// The states of frontends.
const (
	_       State = iota
	Served        // translated to an endpoint
	Refused       // rejected: there are no endpoints
	Dropped       // dropped: a policy is Local, and no endpoint is on this node
	Unknown       // it leads where we lead nobody
)

// String returns the state in a word.
func (s State) String() string {
	if s == 0 || s > Unknown {
		s = Unknown
	}
	return [...]string{"", "served", "refused", "dropped", "unknown"}[s]
}

// Masquerade says whose address endpoints do not see.
type Masquerade uint8

// Who is masqueraded.
const (
	Nobody    Masquerade = iota
	Foreign              // all but pods on this node
	Everybody            // all
)

// String returns it in a word.
func (m Masquerade) String() string {
	if m > Everybody {
		return "unknown"
	}
	return [...]string{"nobody", "foreign", "everybody"}[m]
}

// String is the frontend's address and port, of a node port with an asterisk for the
// addresses of the node: *:30080, [*]:30080.
func (f *Frontend) String() string {
	switch {
	case f.Addr.IsValid():
	case f.Family == nft.IPv6:
		return "[*]:" + strconv.Itoa(int(f.Port))
	default:
		return "*:" + strconv.Itoa(int(f.Port))
	}
	return netip.AddrPortFrom(f.Addr, f.Port).String()
}

// Ways lists where a frontend leads: one way, or two under the external policy Local.
func (f *Frontend) Ways() []*Way {
	if f.Local == nil {
		return []*Way{&f.Way}
	}
	return []*Way{&f.Way, f.Local}
}

// Worst is the state of the clients who fare worst.
func (f *Frontend) Worst() State {
	if f.Local != nil {
		return max(f.State, f.Local.State)
	}
	return f.State
}

// Connections is how many new connections the frontend has led to endpoints.
func (f *Frontend) Connections() (n uint64) {
	for _, w := range f.Ways() {
		if w.State == Served {
			n += w.Packets
		}
	}
	return n
}

// Connections is how many new connections the port's frontends have led to endpoints,
// since each of them became an element: the counter of one that is replaced starts
// again where nobody carried it over.
func (p *ServicePort) Connections() (n uint64) {
	for i := range p.Frontends {
		n += p.Frontends[i].Connections()
	}
	return n
}

// Worst is the state of the frontend that fares worst.
func (p *ServicePort) Worst() (s State) {
	for i := range p.Frontends {
		s = max(s, p.Frontends[i].Worst())
	}
	return s
}

// Size is how many endpoints the port has, in the family that has most of them: a pod
// of two families counts once. Where endpoints were not read it is how many there may
// be.
func (p *ServicePort) Size() (n int) {
	for i := range p.Frontends {
		for _, w := range p.Frontends[i].Ways() {
			if w.Endpoints == nil {
				n = max(n, int(w.Draws))
			}
			n = max(n, len(w.Endpoints))
		}
	}
	return n
}

// Torn reports whether any frontend's endpoints do not agree with where it leads.
func (p *ServicePort) Torn() bool {
	return slices.ContainsFunc(p.Frontends, func(f Frontend) bool {
		return f.Torn || f.Local != nil && f.Local.Torn
	})
}

// Endpoints lists every endpoint that a frontend leads to, once: those of IPv4 first,
// each family in the order of slots. All frontends of a port lead to the same ones,
// or under a policy Local to those of them that are on this node.
func (p *ServicePort) Endpoints() []netip.AddrPort {
	var all []netip.AddrPort
	seen := make(map[netip.AddrPort]struct{})
	for _, family := range nft.Families {
		var last []netip.AddrPort
		for i := range p.Frontends {
			if p.Frontends[i].Family != family {
				continue
			}
			for _, w := range p.Frontends[i].Ways() {
				if same(w.Endpoints, last) {
					continue
				}
				last = w.Endpoints
				for _, e := range w.Endpoints {
					if _, ok := seen[e]; !ok {
						seen[e] = struct{}{}
						all = append(all, e)
					}
				}
			}
		}
	}
	return all
}

// same reports whether two slices are one.
func same(a, b []netip.AddrPort) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
