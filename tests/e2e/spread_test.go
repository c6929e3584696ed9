// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
)

// TestSpread: connections are spread evenly (A2.12). Up to 4 endpoints one is
// drawn among as many; above, slots may be empty and are drawn again.
func TestSpread(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const most = 101
	backends := c.backends(t, most)
	sizes := []int{2, 3, 5, 9, 64, 65, most}
	for i, n := range sizes {
		s := service(fmt.Sprint("spread-", n), 1+i, everyProtocol(80)[:2]...)
		withNodePort(s, uint16(30000+n))
		c.write(t, s.Name+".yaml", withSlices(s, backends[:n]...)...)
	}
	c.run(t)
	each := 1000 // connections for each of 3 endpoints
	for i, n := range sizes {
		for _, f := range families {
			for _, network := range networks[:2] {
				if testing.Short() && (f == ip6) != (network == "udp") {
					continue
				}
				t.Run(fmt.Sprintf("A2.12 %d endpoints %s %v", n, network, f), func(t *testing.T) {
					dst := netip.AddrPortFrom(clusterIP(1 + i)[f], 80)
					if network == "udp" {
						dst = netip.AddrPortFrom(outside[f], uint16(30000+n))
					}
					asked := 3 * each
					if n > 3 {
						asked = 40 * n
					}
					tally := c.client.many(asked, 8, network, dst)
					if tally.Failed() > 0 || len(tally.Servers) != n {
						t.Fatalf("%d servers answered: %v", len(tally.Servers), tally)
					}
					checkSpread(t, tally.Servers, asked)
				})
			}
		}
	}
}

// checkSpread compares counts with an even spread: chi squared has a mean of one
// less than the number of endpoints, and is beyond these bounds once in millions.
func checkSpread(t *testing.T, counts map[string]int, asked int) {
	t.Helper()
	n := float64(len(counts))
	want, chi := float64(asked)/n, 0.0
	for server, count := range counts {
		d := float64(count) - want
		chi += d * d / want
		if n <= 3 && math.Abs(d) > 0.15*want {
			t.Errorf("%s was asked %d times, want %.0f +- 15 %%", server, count, want)
		}
	}
	if limit := (n - 1) + 6*math.Sqrt(2*(n-1)) + 15; chi > limit {
		t.Errorf("chi squared of %.0f endpoints is %.1f, want at most %.1f: %v", n, chi, limit, counts)
	}
}
