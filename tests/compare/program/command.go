// SPDX-License-Identifier: Apache-2.0

// Package program measures what a proxy costs and how soon it has done its work: from
// its start until Services carry packets, and from a change to the first packet that
// meets it.
package program

import (
	"context"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// Command measures and writes program.json.
func Command() *cobra.Command {
	var o setup.Options
	cmd := &cobra.Command{
		Use:   "program",
		Short: "Start, changes, memory and processor time of each proxy",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Complete(setup.Options{Peers: []string{"kube-nft", "nftables", "iptables"}, Shapes: []string{"1000x10"}, Rounds: 1, Limit: 2 * time.Minute})
			return o.Isolated(cmd.Context(), slog.Default(), func() error { return measure(cmd.Context(), o) })
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

func measure(ctx context.Context, o setup.Options) error {
	shapes, err := o.ParseShapes()
	if err != nil {
		return err
	}
	api, err := site.StartAPI(ctx, slog.Default())
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.Load(ctx, shapes[0]); err != nil {
		return err
	}
	usable, _, err := o.UsablePeers("start")
	if err != nil {
		return err
	}
	for _, p := range usable {
		n, err := api.NewNode(ctx)
		if err != nil {
			return err
		}
		r, err := n.Start(ctx, p)
		if err != nil {
			return err
		}
		time.Sleep(8 * time.Second)
		out, err := n.Client.Run("bash", "-c", "for i in 10.1.0.0/80 10.1.1.7/80 10.0.2.0/80 10.0.0.1/443 10.0.0.10/53; do timeout 1 bash -c \"exec 3<>/dev/tcp/$i; echo $i ok\" ; done; true")
		slog.Info(p.Name, "out", out, "err", err, "gone", r.Gone())
		if err := n.Close(); err != nil {
			return err
		}
	}
	return nil
}
