// SPDX-License-Identifier: Apache-2.0

// Package tables writes what a table holds so that two of them can be compared.
package tables

import (
	"fmt"
	"slices"

	"github.com/kube-nft/kube-nft/nft"
)

// Lines returns a line for each element of a family's table, sorted. The order of slots
// does not matter in them, since any will do; a gap between slots is a line.
func Lines(f nft.Family, contents nft.Contents) (lines []string) {
	type frontend struct {
		set nft.Set
		key nft.Key
	}
	slots := make(map[frontend]uint32)
	for _, e := range contents.Sorted() {
		if e.Set.HoldsEndpoints() {
			slot := e.Key.Slot
			e.Key.Slot = 0
			at := frontend{e.Set, e.Key}
			if slot != slots[at] {
				lines = append(lines, fmt.Sprintf("%s %v is in slot %d, slot %d is empty", f, e, slot, slots[at]))
			}
			slots[at] = slot + 1
		}
		lines = append(lines, fmt.Sprint(f, " ", e))
	}
	slices.Sort(lines)
	return lines
}
