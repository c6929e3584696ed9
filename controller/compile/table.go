// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// Table is what one family's table should hold. Its Services are set and deleted
// one by one, and each time it tells the difference: work is in proportion to the
// Service, not to the table. Whatever the order of events, it holds the same as a
// Table that was told only the outcome, but for the order of slots.
//
// One goroutine owns a Table.
type Table struct {
	family   nft.Family
	model    model.Family
	services map[types.NamespacedName]*Service
	claims   claims
	// external counts the claims to external IPs by their address.
	external  map[netip.Addr]map[Frontend]int
	conflicts map[Frontend][]Conflict
	// How many Service ports each address stands for; an element each.
	clusterIPs, hairpins refs
	// The endpoints that clients may be noted under.
	learn, learnLocal refs
	owned             owned
	noLocal           NoLocal
	node              map[nft.Set]map[nft.Key]struct{} // what is set from outside
	nodeAddr          netip.Addr
	chains            map[nft.Chain]struct{} // those that the kernel has or is about to have
	counts            nft.Counts
	before            map[Frontend]program // what changed since the last delta; nil before the first Settle
	seed              nft.Contents         // where slots are taken from at first
	delta             nft.Delta            // changes of what is not behind a frontend
	late              []nft.Element        // see TakeLate
}

// Service is a compiled Service.
type Service struct {
	name    types.NamespacedName
	created int64
	addr    netip.Addr
	ports   []*port
}

// port is a compiled Service port.
type port struct {
	service   *Service
	index     int
	name      string
	protocol  model.Protocol
	comment   string
	slots     []netip.AddrPort // of all endpoints
	local     []netip.AddrPort // of those on this node, if a policy asks for them
	pods      []netip.Addr     // on this node among both
	frontends []bound
	internal  policy
	external  policy
	sources   *sources
	affinity  nft.Affinity // zero if clients are not remembered
}

// NewTable returns the desired contents of a family's table, empty. Until Settle
// is called for the first time changes are not recorded, only what they lead to.
func NewTable(f nft.Family) *Table {
	return &Table{
		family:     f,
		model:      ModelFamily(f),
		services:   make(map[types.NamespacedName]*Service),
		claims:     newClaims(0),
		external:   make(map[netip.Addr]map[Frontend]int),
		conflicts:  make(map[Frontend][]Conflict),
		clusterIPs: newRefs(nft.ClusterIPs),
		hairpins:   newRefs(nft.LoopBack),
		learn:      newRefs(nft.LearnEndpoints),
		learnLocal: newRefs(nft.LearnLocalEndpoints),
		owned:      owned{ports: make(map[nft.Port]*port)},
		node:       make(map[nft.Set]map[nft.Key]struct{}),
		chains:     make(map[nft.Chain]struct{}),
	}
}

// ModelFamily returns a family as the model counts it.
func ModelFamily(f nft.Family) model.Family {
	if f == nft.IPv6 {
		return model.IPv6
	}
	return model.IPv4
}

// Set adds or replaces a Service. selection chooses the endpoints of a port.
func (t *Table) Set(s *model.Service, selection func(*model.ServicePort) model.Selection) {
	old := t.services[s.Name]
	next := t.compile(s, old, selection)
	t.release(old)
	if len(next.ports) == 0 {
		delete(t.services, s.Name)
		return
	}
	t.services[s.Name] = next
	t.touchExternal(next.addr)
	t.clusterIPs.address(next.addr, 1)
	for _, p := range next.ports {
		t.claim(p)
		t.share(p, 1)
		t.noLocal.count(p, 1)
		t.owned.set(p.affinity.Port, p)
	}
}

// share counts a port in, or out, of the elements that ports share.
func (t *Table) share(p *port, by int) {
	for _, a := range p.pods {
		t.hairpins.address(a, by)
	}
	if p.affinity != (nft.Affinity{}) {
		t.learn.endpoints(p.protocol, p.slots, by)
		t.learnLocal.endpoints(p.protocol, p.local, by)
	}
}

// Delete removes a Service; one that is not there is fine.
func (t *Table) Delete(name types.NamespacedName) {
	t.release(t.services[name])
	delete(t.services, name)
}

// release takes a Service's claims back.
func (t *Table) release(s *Service) {
	if s == nil {
		return
	}
	t.touchExternal(s.addr)
	for _, p := range s.ports {
		t.unclaim(p)
		t.share(p, -1)
		t.noLocal.count(p, -1)
		t.owned.set(p.affinity.Port, nil)
	}
	t.clusterIPs.address(s.addr, -1)
}

// compile makes a Service's ports; slots stay where they were.
func (t *Table) compile(s *model.Service, old *Service, selection func(*model.ServicePort) model.Selection) *Service {
	next := &Service{name: s.Name, created: s.Created, addr: s.ClusterIPs[t.model]}
	next.ports = make([]*port, 0, len(s.Ports))
	sources := t.sources(s)
	for i := range s.Ports {
		in := &s.Ports[i]
		bound := frontends(s, in, t.model)
		if len(bound) == 0 {
			continue
		}
		p := &port{
			service:   next,
			index:     i,
			name:      in.Name,
			protocol:  in.Protocol,
			frontends: bound,
			comment:   comment(s.Name, in.Name),
			internal:  policy(s.InternalLocal),
			external:  policy(s.ExternalLocal),
			sources:   sources,
		}
		chosen := selection(in)
		slots, local := t.slots(old, p)
		p.slots, p.pods = assign(slots, chosen.Cluster), chosen.Pods
		if p.internal == policyLocal || p.external == policyLocal {
			p.local = assign(local, chosen.Local)
		}
		p.own(next, uint32(s.AffinityTimeout/time.Second))
		next.ports = append(next.ports, p)
	}
	return next
}

// comment names a Service port on its frontends.
func comment(name types.NamespacedName, port string) string {
	colon := ":"
	if port == "" {
		colon = ""
	}
	c := name.Namespace + "/" + name.Name + colon + port
	return c[:min(len(c), nft.CommentLimit)]
}

// program is what a Service port wants of a frontend of a kind.
func (p *port) program(k Kind) program {
	policy := p.external
	if k == ClusterIP {
		policy = p.internal
	}
	return program{k, policy, p.slots, p.local, p.comment, p.affinity.Port, p.sources}
}

// current is what the table holds for a frontend now.
func (t *Table) current(f Frontend) program {
	c, ok := t.granted(f)
	if !ok {
		return program{}
	}
	return c.port.program(c.kind)
}

// Reserve makes room for as many Services, if the table is empty.
func (t *Table) Reserve(services int) {
	if len(t.services) == 0 {
		t.services = make(map[types.NamespacedName]*Service, services)
		t.claims = newClaims(services)
		t.clusterIPs.count = make(map[nft.Key]int, services)
	}
}

func compareFrontends(a, b Frontend) int { return a.key().Compare(b.key()) }

// Model is the table's family as the model counts it.
func (t *Table) Model() model.Family { return t.model }

// Counts is the number of elements in each set.
func (t *Table) Counts() nft.Counts { return t.counts }

// Services lists the Services that the table serves, in no order.
func (t *Table) Services() iter.Seq[*Service] { return maps.Values(t.services) }

// Name is the Service's name.
func (s *Service) Name() types.NamespacedName { return s.name }

// Elements yields what the table holds for the frontends of one Service.
func (t *Table) Elements(s *Service) iter.Seq[nft.Element] {
	return func(yield func(nft.Element) bool) {
		for _, p := range s.ports {
			for _, f := range p.frontends {
				if c, ok := t.granted(f.Frontend); !ok || c != (claim{f.kind, p}) {
					continue
				}
				if !p.program(f.kind).elements(f.Frontend, yield) {
					return
				}
			}
		}
	}
}

// Shared yields the elements that belong to no single Service.
func (t *Table) Shared() iter.Seq[nft.Element] {
	return func(yield func(nft.Element) bool) {
		for set, keys := range t.node {
			for k := range keys {
				if !yield(nft.Element{Set: set, Key: k}) {
					return
				}
			}
		}
		for _, r := range t.refs() {
			for k := range r.count {
				if !yield(r.element(k)) {
					return
				}
			}
		}
	}
}

// All yields everything that the table holds, in no order.
func (t *Table) All() iter.Seq[nft.Element] {
	return func(yield func(nft.Element) bool) {
		for f := range t.claims.winners {
			if !t.current(f).elements(f, yield) {
				return
			}
		}
		for e := range t.Shared() {
			if !yield(e) {
				return
			}
		}
	}
}

// refs are the sets whose elements Service ports share.
func (t *Table) refs() [4]*refs {
	return [...]*refs{&t.hairpins, &t.learn, &t.learnLocal, &t.clusterIPs}
}

// Features are those that the table needs for what it holds.
func (t *Table) Features() nft.Features {
	f := nft.Need(t.counts)
	if len(t.owned.ports) > 0 {
		f |= nft.ClientAffinity
	}
	return f
}

// SetChains says which chains the kernel has.
func (t *Table) SetChains(chains []nft.Chain) {
	clear(t.chains)
	for _, c := range chains {
		t.chains[c] = struct{}{}
	}
}

// DropChains forgets the chains that cannot be without some features, and returns
// them.
func (t *Table) DropChains(f nft.Features) []nft.Chain {
	var gone []nft.Chain
	for c := range t.chains {
		if c.Needs()&f != 0 {
			delete(t.chains, c)
			gone = append(gone, c)
		}
	}
	return gone
}

// Sorted yields everything that the table holds, by set and key.
func (t *Table) Sorted() iter.Seq[nft.Element] {
	all := slices.SortedFunc(t.All(), nft.Element.Compare)
	return slices.Values(all)
}
