// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

const (
	benchEndpoints = 10 // of each Service
	benchBatch     = 20_000
)

func eachSize(b *testing.B, f func(b *testing.B, s *nft.Schema, elements []nft.Element)) {
	for _, services := range []int{1_000, 10_000, 30_000} {
		b.Run(fmt.Sprintf("%dx%d", services, benchEndpoints), func(b *testing.B) {
			s := nft.NewSchema(nft.IPv4, nft.Options{MasqueradeBit: nft.DefaultMasqueradeBit, Counters: true})
			elements := benchElements(services)
			var counts nft.Counts
			for _, e := range elements {
				counts[e.Set]++
			}
			s.Sizes = nft.SizesFor(counts)
			b.ReportAllocs()
			f(b, s, elements)
		})
	}
}

// benchElements are those of so many Services.
func benchElements(services int) []nft.Element {
	addr := func(a byte, n int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, a + byte(n>>16), byte(n >> 8), byte(n)})
	}
	all := make([]nft.Element, 0, services*(benchEndpoints+2))
	for i := range services {
		key := nft.Key{Addr: addr(64, i), Proto: nft.TCP, Port: 80}
		for e := range benchEndpoints {
			to := netip.AddrPortFrom(addr(128, i*benchEndpoints+e), 8080)
			slot := key
			slot.Slot = uint32(e)
			all = append(all, nft.Element{Set: nft.Endpoints, Key: slot, Value: nft.Value{To: to}})
		}
		to := nft.Value{Verdict: nft.Chain{Kind: nft.Service, N: benchEndpoints}, Comment: fmt.Sprintf("default/svc-%d:http", i)}
		all = append(all,
			nft.Element{Set: nft.Services, Key: key, Value: to},
			nft.Element{Set: nft.ClusterIPs, Key: nft.Key{Addr: key.Addr}})
	}
	return all
}

// BenchmarkEncodeAll encodes a whole table's elements, in transactions as large as
// those of a start.
func BenchmarkEncodeAll(b *testing.B) {
	eachSize(b, func(b *testing.B, s *nft.Schema, elements []nft.Element) {
		var t batch
		size := 0
		for b.Loop() {
			size = 0
			for part := range slices.Chunk(elements, benchBatch) {
				if err := t.changes([]nft.Change{{Schema: s, Delta: nft.Delta{Add: part}}}, []counterOf{nil}, nil); err != nil {
					b.Fatal(err)
				}
				t.commit()
				size += len(t.buf)
			}
		}
		b.ReportMetric(float64(size)/float64(len(elements)), "B/element")
	})
}

// BenchmarkEncodeChange encodes what one endpoint more or less is: one endpoint and
// the frontend's verdict.
func BenchmarkEncodeChange(b *testing.B) {
	s := nft.NewSchema(nft.IPv4, nft.Options{MasqueradeBit: nft.DefaultMasqueradeBit, Counters: true})
	elements := benchElements(1)
	endpoint, verdict := elements[benchEndpoints-1:benchEndpoints], elements[benchEndpoints:benchEndpoints+1]
	change := []nft.Change{{Schema: s, Delta: nft.Delta{Delete: verdict, Add: append(slices.Clone(endpoint), verdict...)}}}
	counters := []counterOf{func(nft.Set, nft.Key) (counter, bool) { return counter{packets: 1, bytes: 60}, true }}
	var t batch
	b.ReportAllocs()
	for b.Loop() {
		if err := t.changes(change, counters, nil); err != nil {
			b.Fatal(err)
		}
		t.commit()
	}
}

// BenchmarkRead reads a table back from the kernel, as a restart does.
func BenchmarkRead(b *testing.B) {
	lab := netlab.NewT(b)
	eachSize(b, func(b *testing.B, s *nft.Schema, elements []nft.Element) {
		c, err := Open(Options{NetNS: lab.Namespace(fmt.Sprintf("node-%d", len(elements))).Fd()})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		ctx := context.Background()
		t := nft.Table{Schema: s, Chains: []nft.Chain{{Kind: nft.Service, N: benchEndpoints}}, Elements: slices.Values(elements)}
		if err := c.Reset(ctx, t); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if got, err := c.Read(ctx, s); err != nil || got.Len() != len(elements) {
				b.Fatal(got.Len(), err)
			}
		}
	})
}

// BenchmarkSurvey reads a table as somebody who only looks: frontends with their
// counters, and then the endpoints of all of them or of a page of fifty.
func BenchmarkSurvey(b *testing.B) {
	lab := netlab.NewT(b)
	eachSize(b, func(b *testing.B, s *nft.Schema, elements []nft.Element) {
		ns := lab.Namespace(fmt.Sprintf("seen-%d", len(elements)))
		programTable(b, ns, s, elements)
		for _, page := range []int{0, 50, len(elements)} {
			b.Run(fmt.Sprintf("endpoints-of-%d", min(page, len(elements)/(benchEndpoints+2))), func(b *testing.B) {
				c := openBench(b, ns)
				for b.Loop() {
					survey(b, c, page)
				}
			})
		}
	})
}

// BenchmarkApplyBesideSurvey changes one endpoint, alone and while somebody reads the
// table over and over: the difference is that the machine has less time, not that a
// commit waits for a reader.
func BenchmarkApplyBesideSurvey(b *testing.B) {
	lab := netlab.NewT(b)
	eachSize(b, func(b *testing.B, s *nft.Schema, elements []nft.Element) {
		ns := lab.Namespace(fmt.Sprintf("busy-%d", len(elements)))
		writer := programTable(b, ns, s, elements)
		slot := elements[benchEndpoints-1]
		moved := slot
		moved.Value.To = netip.MustParseAddrPort("10.255.255.254:8080")
		change := func(b *testing.B) {
			for b.Loop() {
				if err := writer.Apply(context.Background(), nft.Change{Schema: s, Delta: nft.Delta{Delete: []nft.Element{slot}, Add: []nft.Element{moved}}}); err != nil {
					b.Fatal(err)
				}
				slot, moved = moved, slot
			}
		}
		b.Run("alone", change)
		b.Run("beside", func(b *testing.B) {
			c := openBench(b, ns)
			done := make(chan struct{})
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					select {
					case <-done:
						return
					default:
						survey(b, c, len(elements))
					}
				}
			}()
			change(b)
			close(done)
			<-ended
		})
	})
}

func openBench(b *testing.B, ns *netlab.Namespace) *Conn {
	b.Helper()
	c, err := Open(Options{NetNS: ns.Fd()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// programTable makes a table of these elements.
func programTable(b *testing.B, ns *netlab.Namespace, s *nft.Schema, elements []nft.Element) *Conn {
	b.Helper()
	c := openBench(b, ns)
	t := nft.Table{Schema: s, Chains: []nft.Chain{{Kind: nft.Service, N: benchEndpoints}}, Elements: slices.Values(elements)}
	if err := c.Reset(context.Background(), t); err != nil {
		b.Fatal(err)
	}
	return c
}

// survey reads all frontends, and the endpoints of so many.
func survey(b *testing.B, c *Conn, page int) {
	ctx := context.Background()
	found, err := c.Survey(ctx, nft.IPv4, func(uint64, nft.Element, uint64) {})
	if err != nil {
		b.Error(err)
		return
	}
	n := 0
	if err := c.SurveyEndpoints(ctx, found, func(nft.Element) bool { n++; return n <= page }); err != nil {
		b.Error(err)
	}
}
