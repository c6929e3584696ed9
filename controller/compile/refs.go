// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/nft"
)

// refs are the elements of a set of addresses that several Service ports share:
// an element is there as long as somebody needs it.
type refs struct {
	set   nft.Set
	count map[netip.Addr]int
	was   map[netip.Addr]bool // whether it was there before the last changes; nil before settle
}

func newRefs(set nft.Set) refs {
	return refs{set: set, count: make(map[netip.Addr]int)}
}

func (r *refs) add(a netip.Addr) { r.change(a, 1) }

func (r *refs) drop(a netip.Addr) { r.change(a, -1) }

func (r *refs) change(a netip.Addr, by int) {
	if !a.IsValid() {
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

func (r *refs) element(a netip.Addr) nft.Element {
	return nft.Element{Set: r.set, Key: nft.Key{Addr: a}}
}

// take adds to a delta what changed since the last call.
func (r *refs) take(d *nft.Delta) {
	if len(r.was) == 0 {
		return
	}
	for _, a := range slices.SortedFunc(maps.Keys(r.was), netip.Addr.Compare) {
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
func (r *refs) settle() { r.was = make(map[netip.Addr]bool) }
