// SPDX-License-Identifier: Apache-2.0

package load

import (
	"net/netip"

	"github.com/kube-nft/kube-nft/nft"
)

// keepEndpoints is for how many readings an endpoint is kept that has no connection
// any more.
const keepEndpoints = 120

// of finds whose a connection is, nil if it is none of a Service.
func (m *Meter) of(c Connection) *port {
	at := frontend{nft.FamilyOf(c.Dst.Addr()), c.Dst.Addr(), c.Proto, c.Dst.Port()}
	if p := m.frontends[at]; p != nil {
		return p
	}
	at.addr = netip.Addr{}
	return m.frontends[at]
}

func (m *Meter) endpoint(p *port, a netip.AddrPort) *endpoint {
	e := p.endpoints[a]
	if e == nil {
		e = &endpoint{}
		p.endpoints[a] = e
	}
	e.round = m.round
	return e
}

// New takes connections that began since the last reading.
func (m *Meter) New(c Connection, n uint64) {
	if p := m.of(c); p != nil {
		m.endpoint(p, c.Server).total += n
	}
}

// Open takes all connections that are open now, and how many are alike.
func (m *Meter) Open(all map[Connection]int) {
	m.opened = true
	for _, p := range m.ports {
		p.open = 0
		for a, e := range p.endpoints {
			if e.open = 0; m.round-e.round > keepEndpoints {
				delete(p.endpoints, a)
			}
		}
	}
	for c, n := range all {
		if p := m.of(c); p != nil {
			p.open += n
			m.endpoint(p, c.Server).open += n
		}
	}
}
