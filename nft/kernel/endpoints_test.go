// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
)

// TestMadeUpChain: a chain whose name says many more endpoints than there are costs no
// memory for those, whoever reads; those that are there are all read, past what is
// asked for at once. The number is one whose memory a machine has if it is taken.
func TestMadeUpChain(t *testing.T) {
	const endpoints, slots, most = 2500, 3_000_000, 64 << 20
	lab, ns, conn, s := programmed(t)
	s.Sizes[nft.Endpoints] = 2 * endpoints
	table := sample(s)
	key := nft.Key{Addr: address(nft.IPv4, "service", 99), Proto: nft.TCP, Port: 80}
	chain := nft.Chain{Kind: nft.Service, N: slots}
	frontend := nft.Element{Set: nft.Services, Key: key, Value: nft.Value{Verdict: chain, Comment: "default/made-up:http"}}
	elements := append(slices.Collect(table.Elements), frontend)
	for i := range uint32(endpoints) {
		e := nft.Element{Set: nft.Endpoints, Key: key, Value: nft.Value{To: netip.AddrPortFrom(address(nft.IPv4, "pod", 2), 1+uint16(i))}}
		e.Key.Slot = i
		elements = append(elements, e)
	}
	slices.SortStableFunc(elements, func(a, b nft.Element) int { return int(a.Set) - int(b.Set) })
	table.Chains, table.Elements = append(table.Chains, chain), slices.Values(elements)
	lab.Must(conn.Reset(ctx, table))
	reader := open(t, ns)
	of := func(c nft.Contents) (n int) {
		for k := range c.Elements[nft.Endpoints] {
			if k.Addr == key.Addr {
				n++
			}
		}
		return n
	}
	for name, read := range map[string]func() (int, error){
		"Read": func() (int, error) {
			c, err := reader.Read(ctx, s)
			return of(c), err
		},
		"Survey": func() (int, error) {
			found, err := reader.Survey(ctx, nft.IPv4, func(uint64, nft.Element, uint64) {})
			if err == nil {
				err = reader.SurveyEndpoints(ctx, found, func(nft.Element) bool { return true })
			}
			return of(found.Contents), err
		},
		"Slots": func() (int, error) {
			all, err := reader.Slots(nft.IPv4, frontend)
			return len(all), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			n, err := read()
			runtime.ReadMemStats(&after)
			if err != nil || n != endpoints {
				t.Errorf("%d endpoints, want %d: %v", n, endpoints, err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > most {
				t.Errorf("it took %d MB", took>>20)
			}
		})
	}
}
