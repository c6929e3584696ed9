// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
)

func renderCommand() *cobra.Command {
	o := options{looksOnly: true}
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Print the tables that run would keep, as a script for nft -f; needs no root",
		Example: `  kube-nft render --manifests deploy/demo
  kube-nft render --kubeconfig ~/.kube/config --hostname-override node-1 > tables.nft`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return render(cmd.Context(), cmd.OutOrStdout(), &o) },
	}
	o.addFlags(cmd.Flags())
	return cmd
}

// renderTime is how long somebody may be expected to wait for a script.
const renderTime = time.Minute

func render(ctx context.Context, w io.Writer, o *options) error {
	p, log, err := o.prepare()
	if err != nil {
		return err
	}
	config := o.controller(p, log.Logger)
	config.NodeIPs = nodeIPs
	if o.manifests != "" {
		// All that is wrong with the files at once, where run would go on
		// without them.
		if _, err := source.ReadDir(o.manifests, dirOptions(p, log.Logger)); err != nil {
			return err
		}
	}
	src, err := o.source(p, log.Logger)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, renderTime)
	defer cancel()
	tables, err := controller.Compile(waiting, config, src)
	if errors.Is(err, controller.ErrNotSynced) && ctx.Err() == nil {
		return fmt.Errorf("the Kubernetes API has not told of all Services, EndpointSlices and the Node within %v: see the log above", renderTime)
	}
	if err != nil {
		return err
	}
	for i, t := range tables {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := nft.Format(w, t); err != nil {
			return err
		}
	}
	return nil
}
