// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"net/netip"
	"slices"
)

// assign gives each endpoint a slot, so that as few slots as possible change:
// endpoints that stay keep theirs, new ones fill the holes of those that left,
// and holes that remain are filled from the end. It returns old itself if nothing
// changed, and otherwise leaves it alone. want has no duplicates and is sorted.
func assign(old, want []netip.AddrPort) []netip.AddrPort {
	if len(old) == 0 {
		return want
	}
	stays := make([]bool, len(want))
	slots := make([]netip.AddrPort, len(old), max(len(old), len(want)))
	var holes []int
	for i, e := range old {
		at, ok := slices.BinarySearchFunc(want, e, netip.AddrPort.Compare)
		if ok && !stays[at] {
			stays[at] = true
			slots[i] = e
		} else {
			holes = append(holes, i)
		}
	}
	if len(holes) == 0 && len(old) == len(want) {
		return old
	}
	for i, e := range want {
		switch {
		case stays[i]:
		case len(holes) > 0:
			slots[holes[0]] = e
			holes = holes[1:]
		default:
			slots = append(slots, e)
		}
	}
	for _, hole := range holes {
		for len(slots) > 0 && !slots[len(slots)-1].IsValid() {
			slots = slots[:len(slots)-1]
		}
		if hole >= len(slots) {
			break
		}
		slots[hole] = slots[len(slots)-1]
		slots = slots[:len(slots)-1]
	}
	return slots
}
