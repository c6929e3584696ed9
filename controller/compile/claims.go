// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/nft"
)

// claim is a Service port's wish for a frontend. At most one is granted.
type claim struct {
	kind Kind
	port *port
}

// before orders claims to one frontend, the winner first: by kind, then the
// oldest Service, then by name, so that the outcome depends on nothing else.
func (c claim) before(o claim) bool {
	return cmp.Or(
		cmp.Compare(c.kind, o.kind),
		cmp.Compare(c.port.service.created, o.port.service.created),
		cmp.Compare(c.port.service.name.Namespace, o.port.service.name.Namespace),
		cmp.Compare(c.port.service.name.Name, o.port.service.name.Name),
		cmp.Compare(c.port.index, o.port.index),
	) < 0
}

// claims keeps who claims which frontend. Nearly every frontend has one claimant,
// so the others are kept apart.
type claims struct {
	winners map[Frontend]claim
	losers  map[Frontend][]claim
}

func newClaims(n int) claims {
	return claims{make(map[Frontend]claim, n), make(map[Frontend][]claim)}
}

func (c *claims) add(f Frontend, n claim) {
	winner, contested := c.winners[f]
	switch {
	case !contested:
		c.winners[f] = n
	case n.before(winner):
		c.winners[f] = n
		c.losers[f] = append(c.losers[f], winner)
	default:
		c.losers[f] = append(c.losers[f], n)
	}
}

func (c *claims) remove(f Frontend, gone claim) {
	losers := c.losers[f]
	if c.winners[f] != gone {
		c.setLosers(f, slices.DeleteFunc(losers, func(l claim) bool { return l == gone }))
		return
	}
	if len(losers) == 0 {
		delete(c.winners, f)
		return
	}
	best := 0
	for i := range losers {
		if losers[i].before(losers[best]) {
			best = i
		}
	}
	c.winners[f] = losers[best]
	c.setLosers(f, slices.Delete(losers, best, best+1))
}

func (c *claims) setLosers(f Frontend, losers []claim) {
	if len(losers) == 0 {
		delete(c.losers, f)
	} else {
		c.losers[f] = losers
	}
}

// Conflict says that a Service does not get a frontend that it claims.
type Conflict struct {
	Frontend Frontend
	Kind     Kind // as the winner has it
	// Winner and Loser are namespace/name:port; of a winner that has the whole
	// address, namespace/name.
	Winner, Loser string
	// Service is the loser's name.
	Service types.NamespacedName
}

// of lists the conflicts over a frontend; a Service in conflict with itself, with
// the same address as external IP and load balancer IP, is none.
func (c *claims) of(f Frontend) []Conflict {
	losers := c.losers[f]
	if len(losers) == 0 {
		return nil
	}
	winner := c.winners[f]
	var all []Conflict
	for _, l := range losers {
		if l.port.service != winner.port.service {
			all = append(all, Conflict{f, winner.kind, winner.port.comment, l.port.comment, l.port.service.name})
		}
	}
	return all
}

// granted returns the claim to a frontend that is served. An external IP, which
// anybody who may write Services chooses freely, never takes any port of another
// Service's cluster IP (CVE-2020-8554).
func (t *Table) granted(f Frontend) (claim, bool) {
	c, ok := t.claims.winners[f]
	if !ok || c.kind != ExternalIP {
		return c, ok
	}
	others := t.clusterIPs.count[nft.Key{Addr: f.Addr}]
	if c.port.service.addr == f.Addr {
		others--
	}
	return c, others == 0
}

// touchExternal touches the external IPs at an address, because it is about to
// become a cluster IP or has been one until now.
func (t *Table) touchExternal(a netip.Addr) {
	for f := range t.external[a] {
		t.touch(f)
	}
}

// claim adds a port's claims, and unclaim takes them back.
func (t *Table) claim(p *port) {
	for _, f := range p.frontends {
		t.touch(f.Frontend)
		t.claims.add(f.Frontend, claim{f.kind, p})
		if f.kind == ExternalIP {
			at := t.external[f.Addr]
			if at == nil {
				at = make(map[Frontend]int)
				t.external[f.Addr] = at
			}
			at[f.Frontend]++
		}
	}
}

func (t *Table) unclaim(p *port) {
	for _, f := range p.frontends {
		t.touch(f.Frontend)
		t.claims.remove(f.Frontend, claim{f.kind, p})
		if f.kind != ExternalIP {
			continue
		}
		at := t.external[f.Addr]
		if at[f.Frontend]--; at[f.Frontend] == 0 {
			delete(at, f.Frontend)
		}
		if len(at) == 0 {
			delete(t.external, f.Addr)
		}
	}
}

// disputed lists the conflicts over a frontend.
func (t *Table) disputed(f Frontend) []Conflict {
	all := t.claims.of(f)
	if c, ok := t.granted(f); !ok && c.port != nil {
		all = append(all, Conflict{f, ClusterIP, t.clusterIPOwner(f.Addr, c.port.service), c.port.comment, c.port.service.name})
	}
	return all
}

// clusterIPOwner names a Service with a cluster IP. Conflicts are rare: it looks
// through all of them.
func (t *Table) clusterIPOwner(a netip.Addr, but *Service) string {
	owner := ""
	for _, s := range t.services {
		if name := s.name.String(); s != but && s.addr == a && (owner == "" || name < owner) {
			owner = name
		}
	}
	return owner
}

// review brings the conflicts over a frontend up to date, and returns those that
// are new.
func (t *Table) review(f Frontend) []Conflict {
	before, now := t.conflicts[f], t.disputed(f)
	if len(now) == 0 {
		delete(t.conflicts, f)
		return nil
	}
	t.conflicts[f] = now
	return slices.DeleteFunc(slices.Clone(now), func(c Conflict) bool { return slices.Contains(before, c) })
}

// reviewAll does so for all frontends that may be disputed.
func (t *Table) reviewAll() (news []Conflict) {
	for f := range t.conflicts {
		if len(t.disputed(f)) == 0 {
			delete(t.conflicts, f)
		}
	}
	for f := range t.claims.losers {
		news = append(news, t.review(f)...)
	}
	for _, at := range t.external {
		for f := range at {
			if t.claims.losers[f] == nil {
				news = append(news, t.review(f)...)
			}
		}
	}
	return news
}

// Conflicts is how many frontends are claimed by a Service that does not get them.
func (t *Table) Conflicts() int { return len(t.conflicts) }

// EachConflict yields them all, with every Service that does not get one, in no
// order.
func (t *Table) EachConflict() iter.Seq[Conflict] {
	return func(yield func(Conflict) bool) {
		for _, at := range t.conflicts {
			for _, c := range at {
				if !yield(c) {
					return
				}
			}
		}
	}
}

func itoa(port uint16) string { return strconv.Itoa(int(port)) }
