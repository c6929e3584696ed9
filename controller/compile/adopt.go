// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"net/netip"

	"github.com/kube-nft/kube-nft/nft"
)

// Adopt makes Service ports that are new take their slots over from a table that
// was read, until AdoptDone: a restart then changes nothing. The contents are only
// read.
func (t *Table) Adopt(have nft.Contents) { t.seed = have }

// AdoptDone ends adoption.
func (t *Table) AdoptDone() { t.seed = nft.Contents{} }

// slots finds the slots that a Service port has now: in this table, or at first
// in the one that is being adopted.
func (t *Table) slots(old *Service, p *port) (all, local []netip.AddrPort) {
	if old != nil {
		for _, o := range old.ports {
			if o.name == p.name && o.protocol == p.protocol {
				return o.slots, o.local
			}
		}
	}
	if t.seed.Len() == 0 {
		return nil, nil
	}
	probe := *p
	probe.slots = []netip.AddrPort{{}}
	probe.local = probe.slots
	for _, f := range p.frontends {
		leads, n := probe.program(f.kind).leads()
		for i, l := range leads[:n] {
			found := t.adopted(f.Frontend, l, p.comment)
			if i == 1 || f.kind == ClusterIP && p.internal == policyLocal {
				local = longer(local, found)
			} else {
				all = longer(all, found)
			}
		}
	}
	return all, local
}

func longer(a, b []netip.AddrPort) []netip.AddrPort {
	if len(b) > len(a) {
		return b
	}
	return a
}

// adopted reads the slots that a frontend has in the table that is being adopted,
// unless it leads to another Service's endpoints there.
func (t *Table) adopted(f Frontend, l lead, comment string) (slots []netip.AddrPort) {
	probe := l.slot(f, 0)
	if t.seed.Elements[l.set][probe.Key].Comment != comment {
		return nil
	}
	for {
		v, ok := t.seed.Elements[probe.Set][probe.Key]
		if !ok {
			return slots
		}
		slots = append(slots, v.To)
		probe.Key.Slot++
	}
}
