// SPDX-License-Identifier: Apache-2.0

package load

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/controller/view"
)

// Row is a Service port as of a reading.
type Row struct {
	view.Name
	State view.State
	// PerSecond is new connections that were led to endpoints, Dropped those that a
	// policy Local let vanish.
	PerSecond, Dropped float64
	// New is how many there have been since the first reading.
	New uint64
	// Open is how many are open; -1 is not known.
	Open int
	// Busiest is the endpoint that got most new connections since the first reading,
	// and Share its share of them, 0 to 1. It is not valid if none was seen.
	Busiest netip.AddrPort
	Share   float64
	// Trend is PerSecond of the last readings, the last one at the end.
	Trend [Trend]float32
}

// Endpoint is one endpoint of a Service port.
type Endpoint struct {
	Addr      netip.AddrPort
	PerSecond float64
	New       uint64
	// Share is that of the new connections since the first reading, 0 to 1.
	Share float64
	Open  int
	// Left says that it is no endpoint any more.
	Left bool
}

// Snapshot is a Meter as of a reading. It does not change.
type Snapshot struct {
	At time.Time
	// Since is when the first reading was.
	Since time.Time
	// Rows are sorted by name.
	Rows []Row
	// PerSecond is the new connections of all, Open the open ones, -1 if not known.
	PerSecond float64
	Open      int
	// Refused and Dropped count Service ports at which somebody is.
	Refused, Dropped int
}

// Snapshot copies what the last reading said.
func (m *Meter) Snapshot() *Snapshot {
	s := &Snapshot{At: m.at, Since: m.began, Rows: make([]Row, 0, len(m.ports)), PerSecond: m.rates.Total()}
	if !m.opened {
		s.Open = -1
	}
	for _, p := range m.ports {
		r := Row{
			Name: p.name, State: p.state, PerSecond: m.rates.Of(p.name), Dropped: p.perSecond.dropped,
			New: p.total, Open: p.open, Trend: p.trend,
		}
		if r.Busiest, r.Share = p.busiest(); m.opened {
			s.Open += p.open
		} else {
			r.Open = -1
		}
		switch p.state {
		case view.Refused:
			s.Refused++
		case view.Dropped:
			s.Dropped++
		}
		s.Rows = append(s.Rows, r)
	}
	slices.SortFunc(s.Rows, func(a, b Row) int { return a.Name.Compare(b.Name) })
	return s
}

func (p *port) busiest() (best netip.AddrPort, share float64) {
	var sum, most uint64
	for a, e := range p.endpoints {
		sum += e.total
		if e.total > most || e.total == most && most > 0 && a.Compare(best) < 0 {
			best, most = a, e.total
		}
	}
	if most == 0 {
		return netip.AddrPort{}, 0
	}
	return best, float64(most) / float64(sum)
}

// Heads are frontends by which the endpoints of a Service port can be looked up, one of
// each family.
func (m *Meter) Heads(name view.Name) []Head {
	if p := m.ports[name]; p != nil {
		return slices.Clone(p.heads)
	}
	return nil
}

// Endpoints lists the endpoints of a Service port, those of the table and those that
// have had connections, the one with most of them first.
func (m *Meter) Endpoints(name view.Name, table []netip.AddrPort) []Endpoint {
	p := m.ports[name]
	if p == nil {
		return nil
	}
	var sum uint64
	for _, e := range p.endpoints {
		sum += e.total
	}
	all := make([]Endpoint, 0, len(table))
	listed := make(map[netip.AddrPort]bool, len(table))
	add := func(a netip.AddrPort, left bool) {
		if listed[a] {
			return
		}
		listed[a] = true
		one := Endpoint{Addr: a, Left: left}
		if e := p.endpoints[a]; e != nil {
			one.New, one.PerSecond, one.Open = e.total, e.perSecond, e.open
			if sum > 0 {
				one.Share = float64(e.total) / float64(sum)
			}
		}
		all = append(all, one)
	}
	for _, a := range table {
		add(a, false)
	}
	for a := range p.endpoints {
		add(a, true)
	}
	slices.SortFunc(all, func(a, b Endpoint) int { return cmp.Or(cmp.Compare(b.New, a.New), a.Addr.Compare(b.Addr)) })
	return all
}

// Order is what rows are sorted by.
type Order string

// The orders. Numbers come with the largest first.
const (
	ByRate  Order = "rate"
	ByName  Order = "name"
	ByOpen  Order = "open"
	ByShare Order = "share"
	ByState Order = "state"
)

// Orders lists them, as a reader goes through them.
var Orders = [...]Order{ByName, ByRate, ByOpen, ByShare, ByState}

// ParseOrder reads an order.
func ParseOrder(s string) (Order, error) {
	if o := Order(s); slices.Contains(Orders[:], o) {
		return o, nil
	}
	return "", fmt.Errorf("%q is not rate, name, open, share or state", s)
}

// Select returns the rows that have all words of a text in their name, protocol or
// state, in an order. Rows that are equal in it are sorted by name.
func (s *Snapshot) Select(text string, by Order, reverse bool) []*Row {
	words := strings.Fields(strings.ToLower(text))
	var all []*Row
	for i := range s.Rows {
		if r := &s.Rows[i]; r.has(words) {
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b *Row) int {
		c := by.compare(a, b)
		if reverse {
			return -c
		}
		return c
	})
	return all
}

func (r *Row) has(words []string) bool {
	if len(words) == 0 {
		return true
	}
	name := r.Name.String() + " " + r.Protocol.String() + " " + r.State.String()
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(name, w) })
}

// compare says which of two comes first.
func (o Order) compare(a, b *Row) int {
	switch o {
	case ByRate:
		return cmp.Or(cmp.Compare(b.PerSecond, a.PerSecond), cmp.Compare(b.Dropped, a.Dropped))
	case ByOpen:
		return cmp.Compare(b.Open, a.Open)
	case ByShare:
		return cmp.Compare(b.Share, a.Share)
	case ByState:
		return cmp.Compare(b.State, a.State)
	}
	return a.Name.Compare(b.Name)
}
