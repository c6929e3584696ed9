// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"iter"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// Claim says that a Service port claims a frontend, and whether it has it.
type Claim struct {
	Frontend Frontend
	Kind     Kind
	Service  types.NamespacedName
	Port     string // its name, "" if it has none
	// Index is the port's among those of the Service.
	Index   int
	Granted bool
	// Winner is who has the frontend instead, as in Conflict; "" is nobody.
	Winner string
}

func (t *Table) claimed(f Frontend, c claim) Claim {
	holder, ok := t.granted(f)
	out := Claim{Frontend: f, Kind: c.kind, Service: c.port.service.name, Port: c.port.name, Index: c.port.index, Granted: ok && holder == c}
	switch {
	case out.Granted:
	case ok:
		out.Winner = holder.port.comment
	case holder == c:
		out.Winner = t.clusterIPOwner(f.Addr, c.port.service)
	}
	return out
}

// ClaimsOf lists what a Service claims, port by port.
func (t *Table) ClaimsOf(service types.NamespacedName) (all []Claim) {
	s := t.services[service]
	if s == nil {
		return nil
	}
	for _, p := range s.ports {
		for _, f := range p.frontends {
			all = append(all, t.claimed(f.Frontend, claim{f.kind, p}))
		}
	}
	return all
}

// Claimants lists who claims a frontend, who has it first.
func (t *Table) Claimants(f Frontend) (all []Claim) {
	if c, ok := t.claims.winners[f]; ok {
		all = append(all, t.claimed(f, c))
	}
	for _, c := range t.claims.losers[f] {
		all = append(all, t.claimed(f, c))
	}
	return all
}

// At lists the Services that claim an address for any port, sorted by name. It looks
// through all of them.
func (t *Table) At(a netip.Addr) (all []types.NamespacedName) {
	for name, s := range t.services {
		at := func(p *port) bool {
			return slices.ContainsFunc(p.frontends, func(f bound) bool { return f.Addr == a })
		}
		if slices.ContainsFunc(s.ports, at) {
			all = append(all, name)
		}
	}
	slices.SortFunc(all, model.CompareNames)
	return all
}

// ElementsOf yields what the table holds for the frontends of a Service.
func (t *Table) ElementsOf(service types.NamespacedName) iter.Seq[nft.Element] {
	if s := t.services[service]; s != nil {
		return t.Elements(s)
	}
	return func(func(nft.Element) bool) {}
}
