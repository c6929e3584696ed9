// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// BenchmarkPurge looks at many entries and deletes none, or a quarter of them; all
// are of port 53.
// nf_conntrack_max bounds how many there can be.
func BenchmarkPurge(b *testing.B) {
	for _, n := range []int{10_000, 100_000, 250_000} {
		lab := netlab.NewT(b)
		c := openIn(b, lab.Namespace("node"))
		entries := crowd(n)
		if err := c.insert(entries...); err != nil {
			b.Logf("%d entries: %v", n, err)
			continue
		}
		for _, port := range []uint16{53, 54} {
			b.Run(fmt.Sprintf("%d/walk-port-%d", n, port), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					lab.Must(purge(c, port, func(_, _ netip.AddrPort) bool { return false }, 0))
				}
			})
		}
		stale := slices.DeleteFunc(entries, func(e Entry) bool { return !gone(e.Original.Dst, e.Reply.Src) })
		b.Run(fmt.Sprintf("%d/delete-a-quarter", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				lab.Must(purge(c, 0, gone, len(stale)))
				b.StopTimer()
				lab.Must(c.insert(stale...))
				b.StartTimer()
			}
		})
		lab.Must(c.flush())
	}
}

func purge(c *Conn, port uint16, stale func(_, _ netip.AddrPort) bool, want int) error {
	_, deleted, err := c.Purge(ctx, nft.IPv4, nft.UDP, port, stale)
	if err == nil && want >= 0 && deleted != want {
		err = fmt.Errorf("deleted %d entries, want %d", deleted, want)
	}
	return err
}

// flush empties the table, for the sake of others on the machine.
func (c *Conn) flush() error {
	return purge(c, 0, func(_, _ netip.AddrPort) bool { return true }, -1)
}
