// SPDX-License-Identifier: Apache-2.0

// Package program measures what a proxy costs and how soon it has done its work: from
// its start until Services carry packets, and from a change to the first packet that
// meets it.
package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// options are the section's.
type options struct {
	setup.Options
	startOnly bool
}

// Command measures and writes program.json.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "program",
		Short: "Start, changes, restart, memory and processor time of each proxy",
		Long: fmt.Sprintf(`program starts each proxy on the same objects, and measures how soon Services carry packets,
how soon a change meets its first packet, alone and beside many others, what is lost and
written over a restart, and what all that takes of memory, of processor time and of the
lock of nftables. It measures %s at %s, and in full %s at %s.`,
			strings.Join(small.Peers, ", "), strings.Join(small.Shapes, ", "), strings.Join(full.Peers, ", "), strings.Join(full.Shapes, ", ")),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Full {
				o.Complete(full)
			}
			o.Complete(small)
			return o.Isolated(cmd.Context(), slog.Default(), func() error { return measure(cmd.Context(), o, slog.Default()) })
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&o.startOnly, "start-only", false, "measure how proxies start, and nothing after that")
	return cmd
}

// measure measures all shapes and saves what it found, even if it cannot go on.
func measure(ctx context.Context, o options, log *slog.Logger) error {
	shapes, err := o.ParseShapes()
	if err != nil {
		return err
	}
	peers, skipped, err := o.UsablePeers("start")
	if err != nil {
		return err
	}
	c := &collector{log: log, file: o.NewFile(ctx, log, peers), path: o.Path("program"), began: time.Now()}
	for _, s := range skipped {
		c.skip(s)
	}
	for _, s := range shapes {
		if err := measureShape(ctx, o, c, peers, s); err != nil {
			return errors.Join(err, c.save())
		}
	}
	log.Info("done", "results", c.path, "took", time.Since(c.began).Round(time.Second))
	return c.save()
}

// measureShape measures all peers on the same objects, in turn.
func measureShape(ctx context.Context, o options, c *collector, peers []peer.Peer, s shape.Shape) (err error) {
	api, err := site.StartAPI(ctx, c.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	if err := api.Load(ctx, s); err != nil {
		return err
	}
	var versions versions
	took := make(map[string]time.Duration) // how long a peer needed to start
	for round := range o.Rounds {
		for _, p := range peers {
			if why := tooLarge(o.Options, p, s); why != "" {
				c.skip(result.Skip{Section: "start", Proxy: p.Name, Shape: s.Name, What: "everything", Why: why})
				continue
			}
			if round > 0 && (took[p.Name] == 0 || took[p.Name] > slowStart) {
				continue
			}
			v := &visit{collector: c, plan: o.plan(p, s, round), limit: o.Limit, peer: p, shape: s, api: api, versions: &versions}
			if took[p.Name], err = v.all(ctx); err != nil {
				return err
			}
			if err := c.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// all runs the visit, and another one under strace. It returns how long the proxy needed
// to start; zero is that it cannot, or not in time.
func (v *visit) all(ctx context.Context) (time.Duration, error) {
	err := v.run(ctx)
	if errors.Is(err, errSlow) {
		return 0, nil
	}
	took := v.startTook
	if err == nil && took > 0 && v.plan.trace {
		err = v.trace(ctx)
	}
	return took, err
}
