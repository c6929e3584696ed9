// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// Names of what stands beside the peers.
const (
	proxyBare = "bare" // one rule with dnat
	proxyNone = "none" // no translation
)

// trial is one case: what is sent, and where to whom.
type trial struct {
	name string
	note string
	// bare is the lane with one rule for one Service, which is at the target.
	bare   *meter
	target netip.AddrPort
	// sources are the clients of all lanes.
	sources netip.Prefix
	lanes   []contender
}

// contender is one that is measured beside the bare rule.
type contender struct {
	name    string
	meter   *meter
	targets func(round int) []netip.AddrPort
}

// always returns the same targets in each round.
func always(targets ...netip.AddrPort) func(int) []netip.AddrPort {
	return func(int) []netip.AddrPort { return targets }
}

// figures are what was measured of one trial.
type figures struct {
	bare  []cost
	lanes map[string][]cost // of each contender
	// pairs are what the bare rule cost next to each of these.
	pairs map[string][]cost
}

// run measures all contenders in turn, each next to the bare rule: machines get faster
// and slower, and what is compared is to have met the same one. Who is first of the two
// changes from round to round.
func (t trial) run(ctx context.Context, rounds, size int) (figures, error) {
	f := figures{lanes: make(map[string][]cost), pairs: make(map[string][]cost)}
	flows := make([]Flow, size)
	once := func(m *meter, targets []netip.AddrPort, seed int) (cost, error) {
		traffic{t.sources, targets}.fill(flows, t.seed(seed))
		return m.send(flows)
	}
	err := onOneCPU(func() error {
		for round := range rounds {
			for _, c := range t.lanes {
				if err := ctx.Err(); err != nil {
					return err
				}
				var costs [2]cost // of the bare rule, of the contender
				for k := range 2 {
					var err error
					who := (k + round) % 2
					if who == 0 {
						costs[0], err = once(t.bare, []netip.AddrPort{t.target}, round)
					} else {
						costs[1], err = once(c.meter, c.targets(round), round)
					}
					if err != nil {
						return fmt.Errorf("%s, %s: %w", t.name, c.name, err)
					}
				}
				f.bare = append(f.bare, costs[0])
				f.pairs[c.name] = append(f.pairs[c.name], costs[0])
				f.lanes[c.name] = append(f.lanes[c.name], costs[1])
			}
		}
		return nil
	})
	return f, err
}

// seed makes flows of one trial others than those of the next: a proxy that keeps state
// of its own has not met them.
func (t trial) seed(round int) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, t.name) // never fails
	return h.Sum64() + uint64(round)
}

// rows adds the figures to a file.
func (t trial) rows(f *result.File, row result.Row, got figures) {
	row.Section, row.Case, row.Note = "packet", t.name, t.note
	add := func(proxy, metric, unit string, samples []float64) {
		row.Proxy, row.Metric, row.Unit = proxy, metric, unit
		f.Add(row, samples...)
	}
	for _, m := range metrics {
		add(proxyBare, m.name, "ns", m.ns(got.bare))
		for _, c := range t.lanes {
			add(c.name, m.name, "ns", m.ns(got.lanes[c.name]))
			add(c.name, m.name, "ratio", m.ratios(got, c.name))
		}
	}
}

// metric is one of the two costs.
type metric struct {
	name string
	of   func(cost) float64
}

var metrics = []metric{
	{"first-packet", func(c cost) float64 { return c.first }},
	{"next-packet", func(c cost) float64 { return c.next }},
}

func (m metric) ns(costs []cost) (all []float64) {
	for _, c := range costs {
		all = append(all, m.of(c))
	}
	return all
}

// ratios are to the bare rule, measured next to it.
func (m metric) ratios(f figures, name string) (all []float64) {
	for i, c := range f.lanes[name] {
		all = append(all, m.of(c)/m.of(f.pairs[name][i]))
	}
	return all
}

// generator measures what a packet costs before the node looks at it: to make it, to
// send it, and to drop it because it is for somebody else.
func generator(m *meter, sources netip.Prefix, target netip.AddrPort, rounds, size int) (samples []float64, err error) {
	flows, segments := make([]Flow, size), make([]segment, size)
	err = onOneCPU(func() error {
		for round := range rounds {
			traffic{sources, []netip.AddrPort{target}}.fill(flows, uint64(round))
			for i, f := range flows {
				segments[i] = f.syn()
			}
			ns, err := timed(m.idle, segments)
			if err != nil {
				return err
			}
			samples = append(samples, ns)
		}
		return nil
	})
	return samples, err
}
