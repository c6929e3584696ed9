// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"iter"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/nft"
)

// Family is the table's family.
func (t *Table) Family() nft.Family { return t.family }

// Claims yields the frontends of a protocol that a Service claims, whether it has
// them or another one does.
func (t *Table) Claims(service types.NamespacedName, proto nft.Proto) iter.Seq[Frontend] {
	return func(yield func(Frontend) bool) {
		s := t.services[service]
		if s == nil {
			return
		}
		for _, p := range s.ports {
			for _, f := range p.frontends {
				if f.Proto == proto && !yield(f.Frontend) {
					return
				}
			}
		}
	}
}

// Holder returns the Service and the name of its port that have a frontend.
func (t *Table) Holder(f Frontend) (service types.NamespacedName, port string, ok bool) {
	c, ok := t.granted(f)
	if !ok {
		return types.NamespacedName{}, "", false
	}
	return c.port.service.name, c.port.name, true
}

// NodeIPs lists the addresses that node ports are served on, sorted; none if that
// is everywhere.
func (t *Table) NodeIPs() []netip.Addr {
	var all []netip.Addr
	for k := range t.node[nft.NodeIPs] {
		all = append(all, k.Addr)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}
