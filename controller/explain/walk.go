// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// walk follows a packet.
type walk struct {
	table  Table
	host   Host
	schema *nft.Schema
	x      *Explanation

	steps *[]Step // where steps are noted now
	hook  *nft.Hook
	// rest is the share of packets that no endpoint has been drawn for yet.
	rest float64
	// markedBy says why the packet is to be masqueraded; "" if it is not.
	markedBy string
	// decided says what ended the walk.
	decided string
	// masqueraded: the last chain did that.
	masqueraded bool
}

// Walk follows the first packet of a connection through a table on a host. The packet
// is of the table's family. A source that is an address of the host is a process on it.
func Walk(t Table, h Host, p Packet) Explanation {
	x := Explanation{Packet: p, Protocol: p.Protocol.String()}
	w := &walk{table: t, host: h, schema: t.Schema(), x: &x, rest: 1}
	w.begin()
	p = x.Packet
	s := state{family: w.schema.Family, src: p.Source, dst: p.Destination.Addr(), port: p.Destination.Port(), proto: p.Protocol, in: p.Interface, known: p.Source.IsValid()}
	if !s.known {
		s.src = unspecified(s.family)
	}
	w.follow(s)
	w.conclude()
	return x
}

func unspecified(f nft.Family) netip.Addr {
	if f == nft.IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// begin finds out where the packet comes from.
func (w *walk) begin() {
	p := &w.x.Packet
	switch {
	case p.Origin == Outside:
		return
	case p.Source.IsValid() && w.host.Route(p.Source, netip.Addr{}, "").Local:
		p.Origin = Node
	case p.Origin == Node && !p.Source.IsValid():
		p.Source = w.host.Route(p.Destination.Addr(), netip.Addr{}, "").Source
	case p.Origin == Device && p.Interface == "":
		// Where answers go: packets may come by another way, but rarely do.
		p.Interface = w.host.Route(p.Source, netip.Addr{}, "").Out
	}
}

// follow walks from the first hook to the end.
func (w *walk) follow(s state) {
	first := "prerouting"
	var passed []Passage
	if w.x.Packet.Origin == Node {
		first = "output"
		if r := w.host.Route(s.dst, netip.Addr{}, ""); r.Problem != "" {
			w.fail(Unroutable, "the process is told so when it connects, and no rule sees a packet: "+r.Problem)
			return
		}
	}
	w.steps = &w.x.Steps
	passed = append(passed, w.passage(first, s, "", ""))
	bases := w.bases(first)
	for i, base := range bases {
		fate, ended := w.base(base, &s)
		if ended {
			w.fail(fate, w.decided)
			return
		}
		if base.Base.Type == "nat" {
			w.split(s, bases[i+1:], passed)
			return
		}
	}
}

// fail ends the walk before there is an endpoint.
func (w *walk) fail(f Fate, why string) {
	w.x.Fates, w.x.Why = append(w.x.Fates, f), why
}

// split goes on with each endpoint, and with the packet as it came if none was drawn.
func (w *walk) split(s state, bases []nft.RuleChain, passed []Passage) {
	for i := range w.x.Ends {
		e := &w.x.Ends[i]
		t := s
		t.dst, t.port, t.translated = e.Endpoint.Addr(), e.Endpoint.Port(), true
		b := w.finish(t, bases, passed)
		e.Fate, e.Masqueraded, e.Out = b.fate, b.masqueraded, b.out
		e.Sees, e.Why = b.sees, b.why
		b.Branch.Endpoints = []netip.AddrPort{e.Endpoint}
		w.merge(b.Branch)
	}
	if w.rest > 0 {
		b := w.finish(s, bases, passed)
		w.merge(b.Branch)
		w.fail(b.fate, b.why)
	}
}

// merge adds a branch, or its endpoint to one that is alike.
func (w *walk) merge(b Branch) {
	for i := range w.x.Then {
		o := &w.x.Then[i]
		if o.Fate == b.Fate && len(o.Endpoints) > 0 && len(b.Endpoints) > 0 && slices.Equal(o.Steps, b.Steps) && alike(o.Passages, b.Passages) {
			o.Endpoints = append(o.Endpoints, b.Endpoints...)
			return
		}
	}
	w.x.Then = append(w.x.Then, b)
}

// alike reports whether two ways differ in the endpoint alone.
func alike(a, b []Passage) bool {
	return slices.EqualFunc(a, b, func(x, y Passage) bool {
		x.Destination, y.Destination = netip.AddrPort{}, netip.AddrPort{}
		return x == y
	})
}

// end is how the way of one packet ends.
type end struct {
	Branch
	fate        Fate
	masqueraded bool
	sees        netip.Addr
	out, why    string
}

// finish walks the hooks behind translation.
func (w *walk) finish(s state, bases []nft.RuleChain, passed []Passage) (b end) {
	b.Passages = slices.Clone(passed)
	w.steps, w.decided, w.masqueraded = &b.Steps, "", false
	defer func() { b.Branch.Fate = b.fate }()
	for _, base := range bases { // of the output hook
		if fate, ended := w.base(base, &s); ended {
			b.fate, b.why = fate, w.decided
			return b
		}
	}
	route := w.route(s)
	if route.Problem != "" {
		b.fate, b.why = Unroutable, route.Problem
		return b
	}
	hooks := []string{"forward", "postrouting"}
	switch {
	case route.Local && w.x.Packet.Origin == Node:
		hooks = []string{"postrouting", "input"}
	case route.Local:
		hooks = []string{"input"}
	case w.x.Packet.Origin == Node:
		hooks = []string{"postrouting"}
	case !w.host.Forwards(s.dst):
		b.fate, b.why = Dropped, "this host does not forward packets: net.ipv4.ip_forward and net.ipv6.conf.all.forwarding are to be 1 on a node"
		return b
	default:
		b.out = route.Out
	}
	if !route.Local {
		b.out = route.Out
	}
	for _, hook := range hooks {
		b.Passages = append(b.Passages, w.passage(hook, s, s.in, b.out))
		for _, base := range w.bases(hook) {
			if fate, ended := w.base(base, &s); ended {
				b.fate, b.why = fate, w.decided
				return b
			}
			if w.masqueraded && !b.masqueraded {
				b.masqueraded, b.why = true, w.decided
				s.src = w.masqueradeSource(route, s)
			}
		}
	}
	switch {
	case s.translated:
		b.fate = ToEndpoint
	case route.Local:
		b.fate = ToHost
	default:
		b.fate = Forwarded
	}
	w.source(&b, s, route)
	return b
}

// source says whom the endpoint sees, and why.
func (w *walk) source(b *end, s state, route Route) {
	if b.masqueraded || s.known {
		b.sees = s.src
	}
	switch {
	case b.masqueraded:
	case s.translated && s.known && s.src == s.dst && !route.Local:
		b.why = "the client is the endpoint itself, on another node: it will ignore a packet from its own address, and nobody masquerades it here"
	case s.translated && w.markedBy != "":
		b.why = "the packet ends on this host, and sources are replaced only where packets leave"
	case s.translated:
		b.why = "not masqueraded: " + w.unmarked()
	case b.fate == ToHost:
		b.why = "no Service has this address and port: it goes to a process of this host that listens there, as it came"
	default:
		b.why = "no Service has this address and port: it is forwarded as it came"
	}
}

// unmarked says why nobody marked the packet.
func (w *walk) unmarked() string {
	switch {
	case w.x.Policy == "Local":
		return "under the external traffic policy Local clients keep their address"
	case !w.schema.Options.LocalPods.Known():
		return "nothing is known of pods (--cluster-cidr, --detect-local-mode), so that nobody is"
	}
	return "it comes from a local pod, as far as its " + w.byWhat() + " tells"
}

func (w *walk) byWhat() string {
	if w.schema.Options.LocalPods.Interface != "" {
		return "interface"
	}
	return "address"
}

func (w *walk) route(s state) Route {
	if w.x.Packet.Origin == Device && s.known {
		return w.host.Route(s.dst, s.src, s.in)
	}
	return w.host.Route(s.dst, netip.Addr{}, "")
}

func (w *walk) masqueradeSource(r Route, s state) netip.Addr {
	to := s.dst
	if r.Via.IsValid() && r.Via.Is4() && to.Is4() {
		to = r.Via
	}
	out := r.Out
	if r.Local {
		out = "lo"
	}
	return MasqueradeSource(w.host.Addrs(), out, to)
}

func (w *walk) passage(hook string, s state, in, out string) Passage {
	p := Passage{Hook: hook, Destination: netip.AddrPortFrom(s.dst, s.port), In: in, Out: out, Mark: s.mark, Translated: s.translated}
	if s.known {
		p.Source = s.src
	}
	if hook == "prerouting" {
		p.In = s.in
	}
	return p
}

// bases lists the base chains of a hook, in the order in which packets pass them.
func (w *walk) bases(hook string) (all []nft.RuleChain) {
	for _, c := range w.schema.Chains {
		if c.Base != nil && c.Base.Hook == hook && !strings.HasPrefix(c.Name, "KUBE-LEARN") {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b nft.RuleChain) int { return cmp.Compare(a.Base.Priority, b.Base.Priority) })
	return all
}

// base runs a base chain, and says whether the packet's way ends there.
func (w *walk) base(c nft.RuleChain, s *state) (Fate, bool) {
	w.hook = c.Base
	switch w.chain(c, s) {
	case drops:
		return Dropped, true
	case rejects:
		return Rejected, true
	}
	return "", false
}

// chain runs a chain; the result is done if it came to its end.
func (w *walk) chain(c nft.RuleChain, s *state) outcomeKind {
	for _, r := range c.Rules {
		m := machine{w: w, s: s}
		o := m.run(r)
		w.note(c, r, &m, o)
		switch o.kind {
		case noMatch, done:
		case translates:
			if w.translate(&m); w.rest == 0 {
				return accepts
			}
		case masquerades:
			w.masqueraded = true
			return accepts
		case jumps:
			if k := w.chain(w.named(o), s); k != done && k != returns {
				return k
			}
		case goesTo:
			k := w.chain(w.named(o), s)
			if k == returns {
				k = done
			}
			return k
		default:
			return o.kind
		}
	}
	return done
}

// translate takes an endpoint for each number that may have been drawn.
func (w *walk) translate(m *machine) {
	share, empty := w.rest/float64(len(m.slots)), 0
	for i, to := range m.slots {
		if !to.IsValid() {
			empty++
			continue
		}
		slot := i
		if w.x.Remembered != nil && len(m.slots) == 1 && m.modulus == 0 {
			slot = -1
		}
		at := slices.IndexFunc(w.x.Ends, func(e End) bool { return e.Slot == slot && e.Endpoint == to })
		if at < 0 {
			w.x.Ends = append(w.x.Ends, End{Endpoint: to, Slot: slot})
			at = len(w.x.Ends) - 1
		}
		w.x.Ends[at].Share += share
	}
	w.rest = share * float64(empty)
}

// named finds a chain.
func (w *walk) named(o outcome) nft.RuleChain {
	if c := o.chain; c.Port != (nft.Port{}) {
		_, _, proto, _ := c.Port.Split()
		a := nft.Affinity{Port: c.Port, Local: true, Ways: nft.Ways(0).With(c.Kind)}
		for _, p := range [...]nft.Proto{nft.TCP, nft.UDP, nft.SCTP} {
			if p.String() == proto {
				a.Proto = p
			}
		}
		return w.schema.AffinityChains(a)[0]
	}
	for _, c := range w.schema.Chains {
		if c.Name == o.name {
			return c
		}
	}
	if c, ok := nft.ParseChain(o.name); ok && c.Balances() {
		return w.schema.Dynamic(c)
	}
	return nft.RuleChain{Name: o.name}
}

// conclude sums up.
func (w *walk) conclude() {
	slices.SortStableFunc(w.x.Ends, func(a, b End) int { return cmp.Compare(b.Share, a.Share) })
	var fates []Fate
	for _, e := range w.x.Ends {
		if !slices.Contains(fates, e.Fate) {
			fates = append(fates, e.Fate)
		}
	}
	for _, f := range w.x.Fates {
		if !slices.Contains(fates, f) {
			fates = append(fates, f)
		}
	}
	w.x.Fates = fates
}

// note writes down a rule that the packet came to, if there is something to say of it.
func (w *walk) note(c nft.RuleChain, r nft.Rule, m *machine, o outcome) {
	hit := o.kind != noMatch
	if !hit && !m.asked && !m.bySource {
		return
	}
	step := Step{Hook: w.hook.Hook, Priority: w.hook.Priority, Chain: c.Name, Rule: r.Text, Hit: hit}
	if m.element != nil {
		step.Element = m.element.String()
		w.frontend(m.element)
	}
	step.Says = w.says(c, r, m, o)
	if n := len(*w.steps); n > 0 && (*w.steps)[n-1] == step {
		return // it draws again
	}
	*w.steps = append(*w.steps, step)
}

// frontend remembers which frontend the packet met.
func (w *walk) frontend(e *nft.Element) {
	if e.Value.Comment == "" {
		return
	}
	w.x.Frontend, w.x.Policy = e.Value.Comment, "Cluster"
	switch e.Set {
	case nft.LocalServices, nft.LocalNodePorts:
		w.x.Policy = "Local"
	}
	if e.Value.Verdict.Kind == nft.Drop {
		w.x.Policy = "Local"
	}
}
