// SPDX-License-Identifier: Apache-2.0

// Package ruleset reads what others have programmed: all nf_tables tables of a
// network namespace, where their chains meet packets, and what their rules may do
// to one. Package kernel is for our own tables, and for whatever is written.
//
// It reads and never writes. What it cannot understand of a rule it keeps as
// "may match", so that an answer of Fate is never more certain than it is.
// Of a large ruleset everything is counted, and the rules of a chain and a table
// are kept up to a bound: those of kube-proxy can be 100,000.
//
// Rules that iptables-nft made are in these tables too, as expressions of nf_tables
// and as matches and targets of xtables. Those of iptables-legacy are not: the
// kernel keeps them elsewhere, and ListLegacy reads them into the same form.
package ruleset

import (
	"cmp"
	"fmt"
	"slices"
)

// Family is the family of a table, by the kernel's NFPROTO_* numbers
// (linux/netfilter.h).
type Family uint8

// The families of nf_tables.
const (
	Inet   Family = 1
	IPv4   Family = 2
	ARP    Family = 3
	Netdev Family = 5
	Bridge Family = 7
	IPv6   Family = 10
)

// String is the family's word in nft text.
func (f Family) String() string {
	switch f {
	case Inet:
		return "inet"
	case IPv4:
		return "ip"
	case ARP:
		return "arp"
	case Netdev:
		return "netdev"
	case Bridge:
		return "bridge"
	case IPv6:
		return "ip6"
	}
	return fmt.Sprintf("family(%d)", uint8(f))
}

// Sees reports whether chains of the family see IP packets of another: those of
// inet see both, those of ip and ip6 one, and the rest decides below IP.
func (f Family) Sees(ip Family) bool { return f == ip || f == Inet && (ip == IPv4 || ip == IPv6) }

// Table is a table of any family.
type Table struct {
	Family  Family
	Name    string
	Comment string
	// Dormant tables do nothing.
	Dormant bool
	// Legacy tables are those of xtables, which iptables-legacy makes: the kernel
	// keeps them beside nf_tables, and knows no handles of their rules.
	Legacy bool
	// Owner is the netlink port of the process that owns the table, as a rule its
	// pid; 0 if anybody may change it.
	Owner uint32
	// Rules counts all rules, also those that are not kept.
	Rules  int
	Chains map[string]*Chain
	Sets   map[string]*Set
}

// String names the table as nft does.
func (t *Table) String() string {
	if t.Legacy {
		return t.Family.String() + " " + t.Name + " (iptables-legacy)"
	}
	return t.Family.String() + " " + t.Name
}

// Base lists the chains that packets come to, by hook and priority.
func (t *Table) Base() []*Chain {
	var base []*Chain
	for _, c := range t.Chains {
		if c.Base() {
			base = append(base, c)
		}
	}
	slices.SortFunc(base, func(a, b *Chain) int {
		return cmp.Or(cmp.Compare(a.Hook, b.Hook), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
	})
	return base
}

// Chain is a chain and the rules of it that are kept.
type Chain struct {
	Name string
	// Type is filter, nat or route, and Hook where packets meet the chain, such as
	// prerouting; both are empty for chains that others lead to.
	Type, Hook string
	// Priority orders the chains of a hook, lowest first.
	Priority int32
	// Drop is the policy: what passes all rules is dropped.
	Drop bool
	// Devices are those of a chain of family netdev, or of hook ingress.
	Devices []string
	// Total counts all rules; Rules are the first of them.
	Total int
	Rules []Rule
	// Does counts what the rules do, all of them.
	Does Counts
	// Mark is what the rules do with the packet mark.
	Mark Marks
	// Leads are the chains that rules lead to, each once, and Maps the verdict
	// maps that do.
	Leads, Maps []string
}

// Base reports whether packets come to the chain by themselves.
func (c *Chain) Base() bool { return c.Hook != "" }

// Kept reports whether all rules of the chain are.
func (c *Chain) Kept() bool { return c.Total == len(c.Rules) }

// Set is a set or a map. Elements are those that matter and could be read.
type Set struct {
	Name string
	// Map and Verdict say what elements lead to: data, or verdicts.
	Map, Verdict, Interval, Anonymous bool
	KeyLen                            uint32
	// Size is how many elements fit, 0 if there is no bound, and Count how many
	// there are, -1 where the kernel does not tell.
	Size  uint32
	Count int

	elements []Element
	read     bool // elements are all there are
}

// Action is what a rule may do to a packet.
type Action uint8

// The actions. The first ones end the way of a packet through a chain.
const (
	Accept Action = iota
	Drop
	Reject
	Queue
	DNAT
	SNAT
	Masquerade
	Redirect
	TProxy
	NoTrack
	SetMark
	numActions
)

// Counts says how many rules do what.
type Counts [numActions]int

// Add adds other counts.
func (c *Counts) Add(o Counts) {
	for i, n := range o {
		c[i] += n
	}
}

// String is the word of nft for the action.
func (a Action) String() string {
	return [...]string{"accept", "drop", "reject", "queue", "dnat", "snat", "masquerade", "redirect", "tproxy", "notrack", "meta mark set"}[a]
}

// Ends reports whether the action ends the way of a packet through a base chain.
func (a Action) Ends() bool { return a < NoTrack }

// Marks are bits of the packet mark.
type Marks struct {
	// Sets are those that rules make 1, and Changes are all that they may change.
	Sets, Changes uint32
	// Reads are those that rules look at. Rules that compare the whole mark do not
	// count: they know of no bits.
	Reads uint32
}

// Add adds the bits of others.
func (m *Marks) Add(o Marks) {
	m.Sets |= o.Sets
	m.Changes |= o.Changes
	m.Reads |= o.Reads
}

// Rule is a rule as far as it is understood.
type Rule struct {
	Handle  uint64
	Comment string
	// Matches must all hold.
	Matches []Match
	// Verdict is what follows.
	Verdict Verdict
	Mark    Marks
	// NoTrack takes the packet out of connection tracking.
	NoTrack bool
}

// Verdict is how a rule ends.
type Verdict struct {
	Kind VerdictKind
	// Action is of Kind Act.
	Action Action
	// Chain is where Jump and Goto lead; Map is the verdict map of Lookup.
	Chain, Map string
	// key is what Map is asked for.
	key operand
}

// VerdictKind says what a verdict is about.
type VerdictKind uint8

// The kinds.
const (
	Continue VerdictKind = iota
	Act
	Jump
	Goto
	Return
	Lookup
)

// Reach sums up the chains that a chain leads to, itself among them.
type Reach struct {
	Does Counts
	Mark Marks
	// Chains are the names of the chains, in the order in which they are met.
	Chains []string
}

// Reach follows jumps and verdict maps from a chain.
func (t *Table) Reach(from *Chain) Reach {
	var r Reach
	seen := map[string]bool{from.Name: true}
	next := []*Chain{from}
	for len(next) > 0 {
		c := next[0]
		next = next[1:]
		r.Does.Add(c.Does)
		r.Mark.Add(c.Mark)
		r.Chains = append(r.Chains, c.Name)
		for _, name := range t.leads(c) {
			if to := t.Chains[name]; to != nil && !seen[name] {
				seen[name] = true
				next = append(next, to)
			}
		}
	}
	return r
}

// leads lists the chains that a chain leads to, by rules and by maps.
func (t *Table) leads(c *Chain) []string {
	leads := c.Leads
	for _, name := range c.Maps {
		if m := t.Sets[name]; m != nil {
			for _, e := range m.elements {
				if e.Chain != "" {
					leads = append(leads[:len(leads):len(leads)], e.Chain)
				}
			}
		}
	}
	return leads
}

// Without returns the table as it is if some chains were empty.
func (t *Table) Without(empty func(chain string) bool) *Table {
	without := *t
	without.Chains = make(map[string]*Chain, len(t.Chains))
	for name, c := range t.Chains {
		if empty(name) {
			c = &Chain{Name: name, Type: c.Type, Hook: c.Hook, Priority: c.Priority, Drop: c.Drop, Devices: c.Devices}
		}
		without.Chains[name] = c
	}
	return &without
}
