// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// runOptions are the flags of run alone.
type runOptions struct {
	options
	initOnly bool
	writeTo  string
	cleanup  bool
	version  bool
	// connections is of how many Service ports metrics tell the connections.
	connections int
	// page says whether there is a status page beside metrics.
	page bool
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep this host's tables in step with a cluster or with manifests",
		Example: `  kube-nft run --config config.conf --hostname-override node-1
  kube-nft run --kubeconfig /etc/kubernetes/kube-proxy.conf --cluster-cidr 10.244.0.0/16
  kube-nft run --manifests /etc/kube-nft`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.version:
				fmt.Fprintln(cmd.OutOrStdout(), "kube-nft", version())
				return nil
			case o.cleanup:
				if err := cleanupLasts(cmd.Context()); err != nil {
					return err
				}
				return cleanup(cmd.Context(), cmd.OutOrStdout())
			case o.writeTo != "":
				return o.writeConfig()
			}
			return o.serve(cmd.Context())
		},
	}
	f := cmd.Flags()
	o.addFlags(f)
	f.BoolVar(&o.initOnly, "init-only", false, "check the kernel, set the parameters of conntrack, and end: what needs more privileges than CAP_NET_ADMIN")
	f.StringVar(&o.writeTo, "write-config-to", "", "write the configuration, with all defaults, to this file, and end")
	f.IntVar(&o.connections, "service-metrics", 0, "tell in metrics how many connections Service ports have had, of so many at most, those with most first; 0 tells of none")
	f.BoolVar(&o.page, "status-page", true, "show Services, endpoints and what was done lately to browsers, at the address of metrics")
	f.BoolVar(&o.version, "version", false, "the same as kube-nft version")
	f.BoolVar(&o.cleanup, "cleanup", false, "the same as kube-nft cleanup")
	return cmd
}

// writeConfig writes the configuration as it is understood.
func (o *runOptions) writeConfig() error {
	p, log, err := o.prepare()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(p.of)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if err := os.WriteFile(o.writeTo, text, 0o644); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	log.Info("wrote the configuration", "file", o.writeTo)
	return nil
}

// checkOwn checks that flags of our own can do what they are to.
func (o *runOptions) checkOwn(p plan) error {
	var errs []error
	if o.connections < 0 {
		errs = append(errs, fmt.Errorf("--service-metrics: %d is below 0", o.connections))
	}
	if o.checkEvery < 0 {
		errs = append(errs, fmt.Errorf("--check-interval: %v is below 0", o.checkEvery))
	}
	if o.connections > 0 && !o.counters {
		errs = append(errs, errors.New("--service-metrics and --counters=false exclude each other: nothing is counted"))
	}
	if o.connections > 0 && p.of.MetricsBindAddress == "" {
		errs = append(errs, fmt.Errorf("--service-metrics: %s is empty, so there are no metrics", o.name("metricsBindAddress")))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\n%w", err, errUsage)
	}
	if o.manifests != "" { // before anything of the host is changed
		if _, err := os.Stat(o.manifests); err != nil {
			return fmt.Errorf("--manifests: %w", err)
		}
	}
	return nil
}

func (o *runOptions) serve(ctx context.Context) error {
	boundMemory()
	p, log, err := o.prepare()
	if err != nil {
		return err
	}
	openClientLog(p.of)
	if err := o.checkOwn(p); err != nil {
		return err
	}
	var src source.Source
	if !o.initOnly {
		if src, err = o.source(p, log.Logger); err != nil {
			return err
		}
	}
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	for f, options := range p.rules.Options {
		if err := conn.Preflight(ctx, nft.NewSchema(f, options)); err != nil {
			return explainPermission(err)
		}
	}
	// conntrack is loaded by now, and with it its parameters are there.
	if o.initOnly {
		p.limits.Apply(o.hostRoot, log.Logger)
		log.Info("the kernel has what is needed; ending, as --init-only asks")
		return nil
	}
	socket, err := takeControl(ctx, log.Logger)
	if err != nil {
		return err
	}
	r := &runner{options: &o.options, connections: o.connections, wantsPage: o.page, plan: p, log: log, config: o.controller(p, log.Logger)}
	ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.stop(ctx)
	if socket != nil {
		r.closeLater(func() { socket.Close() })
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	log.Info("starting", "version", version(), "node", p.nodeName, "families", len(p.rules.Options), "mode", string(p.Mode),
		"node_ports_on", p.NodePortAddresses, "node_ports_on_localhost", p.localNodePorts)
	o.tellDoubts(log.Logger, p)
	adjustOOMScore(*p.of.OOMScoreAdj, log.Logger)
	p.limits.Apply(o.hostRoot, log.Logger)
	ctl := controller.New(r.config, conn)
	r.serveControl(ctx, socket, ctl)
	err = ctl.Run(ctx, src)
	fatal, ended := errors.AsType[fatalError](context.Cause(ctx))
	if ended {
		log.Error("ending", "err", fatal.error)
	}
	log.Info("stopped; what is programmed stays, `kube-nft cleanup` removes it")
	if ended {
		return fatal.error
	}
	return err
}

// explainPermission names the mend for want of privileges.
func explainPermission(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("nftables cannot be changed: run as root, or give the container CAP_NET_ADMIN: %w", fs.ErrPermission)
	}
	return err
}
