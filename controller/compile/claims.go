// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"cmp"
	"slices"
	"strconv"
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

// Conflict says that Services claim the same frontend.
type Conflict struct {
	Frontend Frontend
	Kind     Kind // as the winner has it
	// Winner and Loser are namespace/name:port.
	Winner, Loser string
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
			all = append(all, Conflict{f, winner.kind, winner.port.comment, l.port.comment})
		}
	}
	return all
}

func itoa(port uint16) string { return strconv.Itoa(int(port)) }
