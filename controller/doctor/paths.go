// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/ruleset"
)

// Priorities of our chains that translate (nft/doc.go).
const (
	translates = -100
	tracked    = -200 // conntrack's own: chains before it know no states
)

func familyOf(f nft.Family) ruleset.Family { return ruleset.Family(f) }

// way is how a packet comes to a Service: what is known of it, and the hooks that it
// passes.
type way struct {
	from   string // in words
	in     string // interface
	source netip.Prefix
	hooks  []string
}

// ways lists where connections to an endpoint come from: from outside, from a pod on
// this node, and from the node itself.
func (f *Facts) ways(family *Family, to Endpoint) (all []way) {
	route := f.Routes[to.To.Addr()]
	towards := "forward"
	if route.Local {
		towards = "input"
	}
	if uplink := f.Uplinks[family.Family]; uplink != "" {
		all = append(all, way{from: "from outside by " + uplink, in: uplink, hooks: []string{"prerouting", towards, "postrouting"}})
	}
	for _, pod := range family.LocalEndpoints {
		if r := f.Routes[pod]; pod != to.To.Addr() && r.Out != "" && !r.Local {
			all = append(all, way{
				from: fmt.Sprintf("from pod %s by %s", pod, r.Out), in: r.Out, source: netip.PrefixFrom(pod, pod.BitLen()),
				hooks: []string{"prerouting", towards, "postrouting"},
			})
			break
		}
	}
	if towards == "forward" {
		all = append(all, way{from: "from the node itself", hooks: []string{"output", "postrouting"}})
	}
	return all
}

// loss is where packets are lost, and which.
type loss struct {
	action ruleset.Action
	place  ruleset.Place
	what   []string
	from   string
}

// losses collects losses by place.
type losses struct {
	order []string
	at    map[string]*loss
}

func (l *losses) add(a ruleset.Action, at ruleset.Place, what, from string) {
	if l.at == nil {
		l.at = make(map[string]*loss)
	}
	key := at.String()
	if l.at[key] == nil {
		l.order = append(l.order, key)
		l.at[key] = &loss{action: a, place: at, from: from}
	}
	if !slices.Contains(l.at[key].what, what) {
		l.at[key].what = append(l.at[key].what, what)
	}
}

// checkPaths follows the first packet of a connection to endpoints, after it was
// translated, through the chains of others.
func checkPaths(f *Facts) (all []Finding) {
	var lost losses
	tables := f.others()
	for i := range f.Families {
		family := &f.Families[i]
		for _, to := range family.Endpoints {
			if _, ok := f.Routes[to.To.Addr()]; !ok {
				continue
			}
			for _, way := range f.ways(family, to) {
				f.follow(&lost, tables, family, to, way)
			}
		}
	}
	for _, key := range lost.order {
		l := lost.at[key]
		all = append(all, endpointDropped.at(key, "new connections %s to %s are lost: %s, in %s", l.from, few(l.what), l.action, key).mend("%s", letThrough(l.place)))
	}
	return all
}

func (f *Facts) follow(lost *losses, tables []*ruleset.Table, family *Family, to Endpoint, way way) {
	packet := ruleset.Packet{
		Family: familyOf(family.Family), In: way.in, Source: way.source, Proto: uint8(to.Proto),
		Dest: netip.PrefixFrom(to.To.Addr(), to.To.Addr().BitLen()), DestPort: to.To.Port(), New: true, Translated: true,
	}
	for _, hook := range way.hooks {
		p := packet
		// At output a translated packet is routed anew, but the hook still has the
		// interface of the frontend's route (nf_hook_state, out).
		if hook == "forward" || hook == "postrouting" {
			p.Out = f.Routes[to.To.Addr()].Out
		}
		if hook == "output" || hook == "postrouting" {
			p.In = "" // the hook does not have it
		}
		for _, t := range tables {
			if !t.Family.Sees(p.Family) {
				continue
			}
			for _, c := range t.Base() {
				if c.Hook != hook || c.Type == "nat" || (hook == "prerouting" || hook == "output") && c.Priority <= translates {
					continue
				}
				if a, at, ok := t.Fate(c, p).Lost(); ok {
					lost.add(a, at, fmt.Sprintf("%s (%s)", to.To, to.Service), way.from)
				}
			}
		}
	}
}

// letThrough is the command that lets pass what was translated.
func letThrough(at ruleset.Place) string {
	program := "iptables"
	if at.Table.Family == ruleset.IPv6 {
		program = "ip6tables"
	}
	switch {
	case at.Table.Legacy:
		program += "-legacy"
	case !ofIPTables(at.Table, at.Base):
		return fmt.Sprintf("nft insert rule %s %s ct status dnat accept", at.Table, at.Base.Name)
	}
	return fmt.Sprintf("%s -t %s -I %s -m conntrack --ctstate DNAT -j ACCEPT", program, at.Table.Name, at.Base.Name)
}

// ofIPTables reports whether iptables-nft takes a chain for its own: by its names.
func ofIPTables(t *ruleset.Table, base *ruleset.Chain) bool {
	names := map[string]bool{"raw": true, "mangle": true, "nat": true, "filter": true, "security": true}
	return (t.Family == ruleset.IPv4 || t.Family == ruleset.IPv6) && names[t.Name] && base.Name == strings.ToUpper(base.Hook)
}

// checkFrontends follows packets to Services, before they are translated, through
// the chains that come before ours.
func checkFrontends(f *Facts) (all []Finding) {
	var lost, moved, loose losses
	tables := f.others()
	for i := range f.Families {
		family := &f.Families[i]
		for _, e := range family.Compared() {
			addrs := []netip.Addr{e.Addr}
			if !e.Addr.IsValid() {
				addrs = family.NodeAddrs
			}
			for _, a := range addrs[:min(len(addrs), 1)] {
				for _, hook := range []string{"prerouting", "output"} {
					f.before(&lost, &moved, &loose, tables, family, e, a, hook)
				}
			}
		}
	}
	for _, key := range lost.order {
		l := lost.at[key]
		all = append(all, frontendDropped.at(key, "packets %s to %s are lost before they are translated: %s, in %s", l.from, few(l.what), l.action, key))
	}
	for _, key := range moved.order {
		l := moved.at[key]
		found := translatedBefore.at(key, "packets %s to %s meet %s, in %s", l.from, few(l.what), l.action, key)
		if !l.place.Sure || l.place.Base.Priority == translates {
			found = found.likely() // who has registered first goes first
		}
		all = append(all, found)
	}
	for _, key := range loose.order {
		l := loose.at[key]
		found := untracked.at(key, "packets %s to %s meet notrack, in %s", l.from, few(l.what), key)
		if !l.place.Sure {
			found = found.likely()
		}
		all = append(all, found)
	}
	return all
}

func (f *Facts) before(lost, moved, loose *losses, tables []*ruleset.Table, family *Family, e Frontend, a netip.Addr, hook string) {
	packet := ruleset.Packet{
		Family: familyOf(family.Family), Dest: netip.PrefixFrom(a, a.BitLen()), Proto: uint8(e.Proto), DestPort: e.Port,
	}
	from := "from the node itself"
	if hook == "prerouting" {
		packet.In = f.Uplinks[family.Family]
		from = "from outside"
		if packet.In != "" {
			from += " by " + packet.In
		}
	}
	what := fmt.Sprintf("%s %s (%s)", netip.AddrPortFrom(a, e.Port), e.Proto, e.Service)
	for _, t := range tables {
		if !t.Family.Sees(packet.Family) || cached(f, a) {
			continue
		}
		for _, c := range t.Base() {
			if c.Hook != hook || c.Priority > translates {
				continue
			}
			packet.New = c.Priority > tracked
			fate := t.Fate(c, packet)
			if action, at, ok := fate.Lost(); ok {
				lost.add(action, at, what, from)
			}
			for _, action := range []ruleset.Action{ruleset.DNAT, ruleset.Redirect, ruleset.TProxy} {
				if at, ok := fate.May[action]; ok && (at.Sure || t.Names(at.Rule, packet)) {
					moved.add(action, at, what, from)
				}
			}
			if at := fate.NoTrackAt; fate.NoTrack && (at.Sure || t.Names(at.Rule, packet)) {
				loose.add(ruleset.NoTrack, at, what, from)
			}
		}
	}
}

// cached reports whether NodeLocal DNSCache has an address: it answers there itself,
// and takes packets to it out of connection tracking on purpose.
func cached(f *Facts, a netip.Addr) bool {
	return slices.ContainsFunc(f.Interfaces, func(i Interface) bool {
		return i.Name == "nodelocaldns" && slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// checkMarks looks for our bit of the mark in the rules of others. Whoever sets it
// has us masquerade; whoever changes it between our dnat and our masquerade keeps us
// from it, or not; whoever looks at it may take our packets for his.
func checkMarks(f *Facts) (all []Finding) {
	seen := make(map[string]bool)
	for i := range f.Families {
		family := &f.Families[i]
		if family.State != Healthy && family.State != Altered {
			continue
		}
		bit := uint32(1) << family.MasqueradeBit
		for _, t := range f.others() {
			if !t.Family.Sees(familyOf(family.Family)) || t.Dormant {
				continue
			}
			for _, c := range t.Base() {
				for _, found := range marksOf(t, c, bit) {
					if !seen[found.What] {
						seen[found.What] = true
						all = append(all, found)
					}
				}
			}
		}
		for _, r := range f.MarkRules {
			if r.Family == family.Family && r.Mask&bit != 0 && r.Mask != 0xffffffff {
				all = append(all, markConflict.at(fmt.Sprintf("ip rule %d", r.Priority), "policy routing of family %s asks for mark %#x/%#x, and bit %#x is ours", family.Family, r.Mark, r.Mask, bit))
			}
		}
	}
	return all
}

// marksOf says what a base chain and what it leads to do with our bit.
func marksOf(t *ruleset.Table, c *ruleset.Chain, bit uint32) (all []Finding) {
	between := (c.Hook == "prerouting" || c.Hook == "output") && c.Priority > translates ||
		c.Hook == "input" || c.Hook == "forward" || c.Hook == "postrouting" && c.Priority < -translates
	late := c.Hook == "postrouting" && c.Priority >= -translates
	for _, name := range t.Reach(c).Chains {
		m, at := t.Chains[name].Mark, fmt.Sprintf("chain %s %s", t, name)
		switch {
		case m.Sets&bit != 0 && !late:
			all = append(all, markConflict.at(at, "%s sets bit %#x of the mark, at %s: packets that pass there are masqueraded", at, bit, c.Hook))
		case m.Changes&bit != 0 && between:
			all = append(all, markConflict.at(at, "%s changes bit %#x of the mark, at %s after our dnat: packets that should be masqueraded may not be", at, bit, c.Hook).likely())
		case takes(t.Chains[name], bit):
			all = append(all, markConflict.at(at, "%s looks at bit %#x of the mark, at %s: it takes packets of Services for its own", at, bit, c.Hook).likely())
		}
	}
	return all
}

// takes reports whether rules of a chain that look at our bit do something to packets
// that have it. Many let them pass, or masquerade them as we would: kube-proxy has the
// same bit, and network plugins such as flannel know.
func takes(c *ruleset.Chain, bit uint32) bool {
	if c.Mark.Reads&bit == 0 {
		return false
	}
	for i := range c.Rules {
		r := &c.Rules[i]
		if r.Mark.Reads&bit == 0 {
			continue
		}
		switch v := r.Verdict; v.Kind {
		case ruleset.Jump, ruleset.Goto, ruleset.Lookup:
			return true
		case ruleset.Act:
			if v.Action != ruleset.Accept && v.Action != ruleset.Masquerade && v.Action != ruleset.SNAT {
				return true
			}
		}
	}
	return !c.Kept()
}
