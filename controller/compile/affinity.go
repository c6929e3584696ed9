// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// identity names a Service port for what it owns. Two ports of a Service that
// differ in neither name nor protocol, which the API does not allow, would own the
// same: only the first one remembers its clients.
func identity(s *Service, p *port) nft.Port {
	name := s.name.Namespace + "/" + s.name.Name + "/" + nft.Proto(p.protocol).String()
	if p.name != "" {
		name += "/" + p.name
	}
	if len(name) > maxIdentity || strings.ContainsFunc(name, unlistable) {
		return nft.Port{}
	}
	o := nft.PortOf(name)
	if slices.ContainsFunc(s.ports, func(other *port) bool { return other.affinity.Port == o }) {
		return nft.Port{}
	}
	return o
}

// maxIdentity bounds what is made of an identity: the kernel takes names of sets
// and chains of up to 255 bytes (NFT_NAME_MAXLEN).
const maxIdentity = 220

// unlistable reports whether nft could not read a name with r in it. The API lets
// no such names pass, manifests may.
func unlistable(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '/')
}

// own says what a Service port owns that remembers its clients: nothing while it
// leads to no endpoints.
func (p *port) own(s *Service, timeout uint32) {
	if timeout == 0 || len(p.slots) == 0 {
		return
	}
	o := identity(s, p)
	if o == (nft.Port{}) {
		return
	}
	a := nft.Affinity{Port: o, Proto: nft.Proto(p.protocol), Timeout: timeout}
	for _, f := range p.frontends {
		leads, n := p.program(f.kind).leads()
		for _, l := range leads[:n] {
			if l.affinity != 0 {
				a.Ways = a.Ways.With(l.affinity)
			}
		}
	}
	if a.Ways == 0 {
		return
	}
	a.Local = a.Ways.Has(nft.AffinityLocal) || a.Ways.Has(nft.AffinityServiceLocal)
	p.affinity = a
}

// keep says whom the port's clients may stay with.
func (p *port) keep() nft.Keep {
	return nft.Keep{Affinity: p.affinity, Endpoints: p.slots, Local: p.local}
}

// owned keeps which Service ports own something, and which of them changed.
type owned struct {
	ports  map[nft.Port]*port
	before map[nft.Port]*port // nil ports owned nothing; the map is nil before settle
}

func (o *owned) set(name nft.Port, p *port) {
	if name == (nft.Port{}) {
		return
	}
	if _, seen := o.before[name]; !seen && o.before != nil {
		o.before[name] = o.ports[name]
	}
	if p == nil {
		delete(o.ports, name)
	} else {
		o.ports[name] = p
	}
}

// take adds to a delta what changed since the last call.
func (o *owned) take(d *nft.Delta) {
	names := slices.SortedFunc(maps.Keys(o.before), func(a, b nft.Port) int { return strings.Compare(a.String(), b.String()) })
	for _, name := range names {
		was, is := o.before[name], o.ports[name]
		change := nft.AffinityChange{}
		if was != nil {
			change.Was = was.affinity
		}
		if is != nil {
			change.Is = is.affinity
		}
		if change.Was != change.Is {
			d.Affinities = append(d.Affinities, change)
		}
		if was != nil && is != nil && (left(was.slots, is.slots) || left(was.local, is.local)) {
			d.Keep = append(d.Keep, is.keep())
		}
	}
	o.settle()
}

// settle forgets what changed.
func (o *owned) settle() { o.before = make(map[nft.Port]*port) }

// left reports whether an endpoint is gone.
func left(before, after []netip.AddrPort) bool {
	if len(before) > 0 && len(before) == len(after) && &before[0] == &after[0] {
		return false
	}
	stays := make(map[netip.AddrPort]bool, len(after))
	for _, e := range after {
		stays[e] = true
	}
	return slices.ContainsFunc(before, func(e netip.AddrPort) bool { return !stays[e] })
}

// Affinities lists what Service ports own, sorted by name, and whom their clients
// may stay with.
func (t *Table) Affinities() ([]nft.Affinity, []nft.Keep) {
	var all []nft.Affinity
	var keep []nft.Keep
	for _, p := range t.owned.ports {
		keep = append(keep, p.keep())
	}
	slices.SortFunc(keep, func(a, b nft.Keep) int {
		return strings.Compare(a.Affinity.Port.String(), b.Affinity.Port.String())
	})
	for _, k := range keep {
		all = append(all, k.Affinity)
	}
	return all, keep
}
