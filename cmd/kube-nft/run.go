// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/event"
	"github.com/kube-nft/kube-nft/controller/health"
	"github.com/kube-nft/kube-nft/controller/localport"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

func runCommand() *cobra.Command {
	var o options
	var m metricsOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep this host's tables in step with a cluster or with manifests",
		Example: `  kube-nft run --kubeconfig /etc/kubernetes/kube-proxy.conf --cluster-cidr 10.244.0.0/16
  kube-nft run --manifests /etc/kube-nft`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), &o, &m) },
	}
	o.addFlags(cmd.Flags())
	m.addFlags(cmd.Flags())
	return cmd
}

func serve(ctx context.Context, o *options, m *metricsOptions) error {
	config, err := o.config()
	if err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	src, err := o.source(config)
	if err != nil {
		return err
	}
	config.NodeIPs = nodeIPs
	if config.AddrsChanged, err = watchAddrs(ctx); err != nil {
		return err
	}
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return err
	}
	defer conn.Close()
	for f, options := range config.Options {
		if err := conn.Preflight(ctx, nft.NewSchema(f, options)); err != nil {
			return explainPermission(err)
		}
	}
	log := config.Logger
	if o.localNodePorts {
		relay := localport.New(log)
		defer relay.Close()
		config.LocalPorts = relay
	}
	unobserve, err := o.observe(ctx, &config, m)
	defer unobserve()
	if err != nil {
		return err
	}
	proxy := health.NewProxy(nil, unhealthyAfter, o.manifests == "", nil)
	config.Health = proxy
	checks := health.New(log, proxy.Healthy, func(s *model.Service, at string, err error) {
		if config.Events != nil {
			config.Events.Warn(s, "FailedToStartServiceHealthcheck", config.NodeName+" "+at, fmt.Sprintf("node %s cannot answer the load balancer's "+
				"health checks at %s: %v; free the port, or let the Service be given another one", config.NodeName, at, err))
		}
	})
	defer checks.Close()
	config.HealthPorts = checks
	log.Info("starting", "version", version(), "node", config.NodeName, "families", len(config.Options))
	o.limits.Apply("/", log) // conntrack is loaded by now, and with it they are there
	var stopCleaner func()
	if config.Cleaner, stopCleaner, err = startCleaner(ctx, config); err != nil {
		return err
	}
	defer stopCleaner()
	start, first := time.Now(), true
	config.Committed = func(c controller.Commit) {
		if first {
			first = false
			log.Info("everything is programmed", "services", c.Services, "added", c.Added, "deleted", c.Deleted,
				"batches", c.Batches, "duration", c.Took, "since_start", time.Since(start))
		}
	}
	err = controller.New(config, conn).Run(ctx, src)
	log.Info("stopped; what is programmed stays, `kube-nft cleanup` removes it")
	return err
}

// unhealthyAfter is how long a change may wait: twice kube-proxy's sync period.
const unhealthyAfter = time.Minute

// startCleaner starts what deletes stale UDP flows; stop ends it.
func startCleaner(ctx context.Context, config controller.Config) (cleaner *controller.Cleaner, stop func(), err error) {
	conn, err := conntrack.Open(conntrack.Options{})
	if err != nil {
		return nil, nil, err
	}
	cleaner = controller.NewCleaner(conn, config.LocalAddrs, config.Logger)
	if config.Metrics != nil {
		cleaner.Walked = controller.MeasureWalks(config.Metrics)
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { cleaner.Run(ctx) })
	return cleaner, func() {
		cancel()
		running.Wait()
		conn.Close()
	}, nil
}

// observe starts what tells others of the controller: metrics, and events in the
// cluster. stop ends it, also after an error.
func (o *options) observe(ctx context.Context, config *controller.Config, m *metricsOptions) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	stop = func() {
		cancel()
		wg.Wait()
	}
	if o.manifests == "" {
		// A client of its own: the source never waits behind events.
		client, err := o.client()
		if err != nil {
			return stop, err
		}
		recorder := event.New(client, config.NodeName, config.Logger)
		config.Events = recorder
		wg.Go(func() { recorder.Run(ctx) })
	}
	if m.address == "" {
		return stop, nil
	}
	// A connection of its own: scrapes never hold up a commit.
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return stop, err
	}
	registry := newRegistry()
	config.Metrics, config.Clients = registry, conn
	server := metricsServer{address: m.address, registry: registry, log: config.Logger, again: listenAgain}
	wg.Go(func() {
		server.run(ctx)
		conn.Close()
	})
	return stop, nil
}

// explainPermission names the mend for want of privileges.
func explainPermission(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("nftables cannot be changed: run as root, or give the container CAP_NET_ADMIN: %w", fs.ErrPermission)
	}
	return err
}
