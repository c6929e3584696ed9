// SPDX-License-Identifier: Apache-2.0

// Package packet measures what a proxy costs the packets: the first one of each
// connection, for which it has to choose an endpoint, and those of connections that
// are established.
//
// The cost of a first packet is that of its whole way from a client's interface through
// a node to the pods, with all work done on one CPU while nothing else runs there; see
// Sender. It is compared with that of one dnat rule for one Service, measured next to
// it. So is the next packet, which is part of an established connection.
package packet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
)

// options are the section's.
type options struct {
	setup.Options
	batch int // flows
	flows int // rounds of established connections
}

var (
	small = setup.Options{
		Peers: []string{"kube-nft", "nftables", "iptables"}, Shapes: []string{"1000x10"}, Rounds: 9, Limit: time.Minute,
	}
	full = setup.Options{
		Peers:  []string{"kube-nft", "nftables", "nftables-1.36", "iptables", "iptables-nft"},
		Shapes: []string{"10x10", "1000x10", "10000x10", "100000x2"},
		Rounds: 7, Limit: time.Minute,
	}
)

// Command measures and writes packets.json.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "packets",
		Short: "What a connection's first packet costs, and established connections",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// These are there anyhow.
			o.Peers = slices.DeleteFunc(o.Peers, func(name string) bool { return name == proxyBare || name == proxyNone })
			defaults, batch := small, 5_000
			if o.Full {
				defaults, batch = full, 10_000
			}
			o.Complete(defaults)
			o.batch = cmp.Or(o.batch, batch)
			return o.Isolated(cmd.Context(), slog.Default(), func() error { return measure(cmd.Context(), slog.Default(), o) })
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.Flags().IntVar(&o.batch, "batch", 0, "new connections at a time, of one proxy")
	cmd.Flags().IntVar(&o.flows, "flow-rounds", 3, "how often to measure established connections; 0 leaves them out")
	return cmd
}

// measure saves what there is after each shape, and when it is interrupted.
func measure(ctx context.Context, log *slog.Logger, o options) error {
	shapes, err := o.ParseShapes()
	if err != nil {
		return err
	}
	if o.batch < burst {
		return fmt.Errorf("--batch is %d at least", burst)
	}
	peers, skipped, err := o.UsablePeers("packet")
	if err != nil {
		return err
	}
	f := o.NewFile(ctx, log, peers)
	for _, s := range skipped {
		log.Warn("skipped", "proxy", s.Proxy, "why", s.Why)
		f.Skip(s)
	}
	beaten := make(map[string]string)
	for _, s := range shapes {
		err := measureShape(ctx, log, o, s, peers, beaten, f)
		if err != nil && ctx.Err() == nil {
			log.Error("not measured", "shape", s.Name, "err", err)
			f.Skip(result.Skip{Section: "packet", Shape: s.Name, What: "what has no row", Why: err.Error()})
		}
		f.Took = time.Since(f.Started)
		if err := errors.Join(ctx.Err(), f.Save(o.Path("packets"))); err != nil {
			return err
		}
	}
	return nil
}

func measureShape(ctx context.Context, log *slog.Logger, o options, s shape.Shape, peers []peer.Peer, beaten map[string]string, f *result.File) (err error) {
	g, err := newGround(ctx, log, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.start(ctx, fit(peers, s, beaten, f), o.Limit, beaten, f); err != nil {
		return err
	}
	row := result.Row{Shape: s.Name, Services: s.Services, Endpoints: s.Endpoints}
	if err := g.measureGenerator(f, row, o); err != nil {
		return err
	}
	if err := g.measureTrials(ctx, g.plain(), f, row, o); err != nil {
		return err
	}
	if err := g.expose(ctx, o.Limit, f); err != nil {
		return err
	}
	if err := g.measureTrials(ctx, g.featured(), f, row, o); err != nil || o.flows == 0 {
		return err
	}
	return g.measureFlows(ctx, f, row, o.flows)
}

// fit returns the peers that can be hoped to serve a shape in time, and skips others:
// those that a smaller one has beaten, and those that are known to take too long.
func fit(peers []peer.Peer, s shape.Shape, beaten map[string]string, f *result.File) (fit []peer.Peer) {
	for _, p := range peers {
		why := beaten[p.Name]
		if p.Most > 0 && s.Services > p.Most {
			why = fmt.Sprintf("it would take an hour; measured up to %d Services", p.Most)
		}
		if why == "" {
			fit = append(fit, p)
			continue
		}
		f.Skip(result.Skip{Section: "packet", Proxy: p.Name, Shape: s.Name, What: "everything", Why: why})
	}
	return fit
}

func (g *ground) measureGenerator(f *result.File, row result.Row, o options) error {
	samples, err := generator(g.none.meter, inside, g.shape.Frontend(0), o.Rounds, o.batch)
	row.Section, row.Proxy, row.Metric, row.Unit = "packet", proxyNone, "generator", "ns"
	row.Note = "part of every first packet here: to make a frame, send it, and drop it before the node looks at it"
	f.Add(row, samples...)
	return err
}

// measureTrials measures one case after the other; one that goes wrong is left out.
func (g *ground) measureTrials(ctx context.Context, trials []trial, f *result.File, row result.Row, o options) error {
	for _, t := range trials {
		got, err := t.run(ctx, o.Rounds, o.batch)
		switch {
		case ctx.Err() != nil:
			return err
		case err != nil:
			g.log.Error("not measured", "shape", g.shape.Name, "case", t.name, "err", err)
			f.Skip(result.Skip{Section: "packet", Shape: g.shape.Name, Case: t.name, What: "this case", Why: err.Error()})
			continue
		}
		t.rows(f, row, got)
		for _, c := range t.lanes {
			first, next := metrics[0], metrics[1]
			g.log.Info("packets", "shape", g.shape.Name, "case", t.name, "proxy", c.name,
				"first_ns", int(median(first.ns(got.lanes[c.name]))), "ratio", fmt.Sprintf("%.3f", median(first.ratios(got, c.name))),
				"next_ns", int(median(next.ns(got.lanes[c.name]))), "ratio", fmt.Sprintf("%.3f", median(next.ratios(got, c.name))))
		}
	}
	return nil
}
