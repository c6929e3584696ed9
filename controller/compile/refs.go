// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// refs are the elements of a set that several Service ports share: an element is
// there as long as somebody needs it.
type refs struct {
	set   nft.Set
	count map[nft.Key]int
	was   map[nft.Key]bool // whether it was there before the last changes; nil before settle
}

func newRefs(set nft.Set) refs {
	return refs{set: set, count: make(map[nft.Key]int)}
}

// address makes the key of an address; by is how many more need it.
func (r *refs) address(a netip.Addr, by int) { r.change(nft.Key{Addr: a}, by) }

// endpoints does so for the keys of a Service port's endpoints.
func (r *refs) endpoints(p model.Protocol, all []netip.AddrPort, by int) {
	for _, e := range all {
		r.change(nft.Key{Addr: e.Addr(), Proto: nft.Proto(p), Port: e.Port()}, by)
	}
}

func (r *refs) change(a nft.Key, by int) {
	if !a.Addr.IsValid() {
		return
	}
	n := r.count[a]
	if _, seen := r.was[a]; !seen && r.was != nil {
		r.was[a] = n > 0
	}
	if n += by; n == 0 {
		delete(r.count, a)
	} else {
		r.count[a] = n
	}
}

func (r *refs) element(k nft.Key) nft.Element { return nft.Element{Set: r.set, Key: k} }

// take adds to a delta what changed since the last call.
func (r *refs) take(d *nft.Delta) {
	if len(r.was) == 0 {
		return
	}
	for _, a := range slices.SortedFunc(maps.Keys(r.was), nft.Key.Compare) {
		_, is := r.count[a]
		switch was := r.was[a]; {
		case was && !is:
			d.Delete = append(d.Delete, r.element(a))
		case !was && is:
			d.Add = append(d.Add, r.element(a))
		}
	}
	r.settle()
}

// settle forgets what changed.
func (r *refs) settle() { r.was = make(map[nft.Key]bool) }
