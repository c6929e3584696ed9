// SPDX-License-Identifier: Apache-2.0

/*
Package load adds up what connections Service ports have: new ones per second, who of
their endpoints gets them, how many are open. It is pure: others read the kernel's
counters, which say how many connections came, and conntrack, which says where they
went.

The two do not depend on each other. Counters are exact, and cost a reading of the maps
of frontends. What conntrack tells may lack something when there is too much of it: then
shares are of what was seen.
*/
package load

import (
	"net/netip"
	"time"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
)

// Trend is how many readings a trend goes back.
const Trend = 40

// Connection is what conntrack tells of one whose destination was translated: what the
// client addressed, and who answers.
type Connection struct {
	Proto  nft.Proto
	Dst    netip.AddrPort
	Server netip.AddrPort
}

// Meter holds what was read. One goroutine owns it. A reading is Begin, Add for each
// frontend of each family's table, and End.
type Meter struct {
	tallies   map[nft.Family]*view.Tally
	rates     view.Rates
	ports     map[view.Name]*port
	frontends map[frontend]*port
	drops     map[counter]drops
	round     uint32
	at, began time.Time
	opened    bool // conntrack has been walked
}

// frontend is what a client addresses; node ports have no address.
type frontend struct {
	family nft.Family
	addr   netip.Addr
	proto  nft.Proto
	number uint16
}

// port is a Service port.
type port struct {
	name      view.Name
	state     view.State
	heads     []Head
	total     uint64 // new connections since the first reading
	dropped   uint64
	perSecond struct{ dropped float64 }
	before    struct{ dropped uint64 }
	trend     [Trend]float32
	endpoints map[netip.AddrPort]*endpoint
	open      int
	round     uint32
}

// Head is a frontend's element, to look its endpoints up by.
type Head struct {
	Family  nft.Family
	Element nft.Element
}

type endpoint struct {
	total, before uint64
	perSecond     float64
	open          int
	round         uint32 // when it last had a connection
}

// counter is one that counts what is dropped.
type counter struct {
	family nft.Family
	view.Counter
}

type drops struct {
	packets uint64
	round   uint32
}

// New returns a Meter before its first reading.
func New() *Meter {
	m := &Meter{
		tallies: make(map[nft.Family]*view.Tally), ports: make(map[view.Name]*port),
		frontends: make(map[frontend]*port), drops: make(map[counter]drops),
	}
	for _, f := range nft.Families {
		m.tallies[f] = view.NewTally()
	}
	return m
}

// Begin starts a reading.
func (m *Meter) Begin() {
	m.round++
	for _, t := range m.tallies {
		t.Begin()
	}
}

// Add takes a frontend, as nft/kernel.Conn.Connections tells of it.
func (m *Meter) Add(f nft.Family, table uint64, e nft.Element, packets uint64) {
	m.tallies[f].Add(table, e, packets)
	at := frontend{f, e.Key.Addr, e.Key.Proto, e.Key.Port}
	name, ok := view.NameOf(e)
	if !ok {
		return // somebody else's
	}
	p := m.port(name)
	m.frontends[at] = p
	p.head(f, e)
	switch to := e.Value.Verdict; {
	case to.Kind == nft.Drop:
		p.state = max(p.state, view.Dropped)
		if e.Set.Counted() {
			m.drop(p, counter{f, view.Counter{Set: e.Set, Key: e.Key}}, packets)
		}
	case to.Kind == nft.Reject:
		p.state = max(p.state, view.Refused)
	default:
		p.state = max(p.state, view.Served)
	}
}

// port finds a Service port, and forgets what the last reading said of it.
func (m *Meter) port(name view.Name) *port {
	p := m.ports[name]
	if p == nil {
		p = &port{name: name, endpoints: make(map[netip.AddrPort]*endpoint)}
		m.ports[name] = p
	}
	if p.round != m.round {
		p.round, p.state, p.heads = m.round, 0, p.heads[:0]
	}
	return p
}

// head keeps one frontend of each family to look endpoints up by: one that is served,
// and rather one that is not of the policy Local.
func (p *port) head(f nft.Family, e nft.Element) {
	if e.Value.Verdict.N == 0 && !e.Value.Verdict.Returns() {
		return
	}
	for i := range p.heads {
		if h := &p.heads[i]; h.Family == f {
			if e.Set > h.Element.Set { // of all sets, KUBE-SERVICES is the last
				h.Element = e
			}
			return
		}
	}
	p.heads = append(p.heads, Head{f, e})
}

// drop adds up what is dropped under a policy Local.
func (m *Meter) drop(p *port, c counter, packets uint64) {
	before, there := m.drops[c]
	if there && packets > before.packets {
		p.dropped += packets - before.packets
	}
	m.drops[c] = drops{packets, m.round}
}

// End ends a reading. whole is false if it may have missed frontends: then none is
// forgotten.
func (m *Meter) End(now time.Time, whole bool) {
	var all []*view.Tally
	for _, t := range m.tallies {
		t.End(whole)
		all = append(all, t)
	}
	m.rates.Update(now, all...)
	if whole {
		m.forget()
	}
	took := now.Sub(m.at).Seconds()
	known := !m.at.IsZero() && took > 0
	if !known {
		m.began = now
	}
	m.at = now
	for _, p := range m.ports {
		p.total = 0
	}
	for _, t := range m.tallies {
		for name, n := range t.Sums() {
			if p := m.ports[name]; p != nil {
				p.total += n
			}
		}
	}
	for _, p := range m.ports {
		p.tick(took, known, float32(m.rates.Of(p.name)))
	}
}

// tick moves a port's trend on.
func (p *port) tick(took float64, known bool, rate float32) {
	if !known {
		p.before.dropped = p.dropped
		return
	}
	copy(p.trend[:], p.trend[1:])
	p.trend[Trend-1] = rate
	p.perSecond.dropped = float64(p.dropped-p.before.dropped) / took
	p.before.dropped = p.dropped
	for _, e := range p.endpoints {
		e.perSecond = float64(e.total-e.before) / took
		e.before = e.total
	}
}

// forget drops what the last reading did not have.
func (m *Meter) forget() {
	for name, p := range m.ports {
		if p.round != m.round {
			delete(m.ports, name)
		}
	}
	for at, p := range m.frontends {
		if p.round != m.round {
			delete(m.frontends, at)
		}
	}
	for c, d := range m.drops {
		if d.round != m.round {
			delete(m.drops, c)
		}
	}
}
