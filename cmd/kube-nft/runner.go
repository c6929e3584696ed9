// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/event"
	"github.com/kube-nft/kube-nft/controller/health"
	"github.com/kube-nft/kube-nft/controller/localport"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// runner is all that runs beside the controller. What it starts ends with its
// context, and stop waits for it.
type runner struct {
	options     *options
	connections int // of how many Service ports metrics tell
	wantsPage   bool
	plan        plan
	log         *logger
	config      controller.Config
	cancel      context.CancelCauseFunc

	registry *prometheus.Registry
	recorder *event.Recorder // nil without a cluster
	health   *health.Proxy
	status   *status
	journal  *journal // nil without a status page
	silence  context.CancelFunc
	running  sync.WaitGroup
	closers  []func()
}

// fatalError is why the process is to end.
type fatalError struct{ error }

func (r *runner) fail(err error) { r.cancel(fatalError{err}) }

// lastWords is how long events may take that say why the process ends.
const lastWords = 2 * time.Second

func (r *runner) stop(ctx context.Context) {
	if _, fatal := errors.AsType[fatalError](context.Cause(ctx)); fatal && r.recorder != nil {
		r.recorder.Drain(lastWords)
	}
	r.cancel(nil)
	if r.silence != nil {
		r.silence()
	}
	r.running.Wait()
	for _, close := range r.closers {
		close()
	}
}

// closeLater has something closed after all that runs has ended.
func (r *runner) closeLater(close func()) { r.closers = append(r.closers, close) }

// start starts everything and completes the controller's configuration with it.
func (r *runner) start(ctx context.Context) error {
	r.registry = newRegistry()
	r.config.NodeIPs = nodeIPs
	var err error
	if r.config.AddrsChanged, err = watchAddrs(ctx); err != nil {
		return err
	}
	if r.plan.localNodePorts {
		relay := localport.New(r.log.Logger)
		r.closeLater(func() { relay.Close() })
		r.config.LocalPorts = relay
	}
	for _, start := range []func(context.Context) error{r.startEvents, r.startHealth, r.startMetrics, r.startCleaner, r.startReloader} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	began, first := time.Now(), true
	r.config.Committed = func(c controller.Commit) {
		if r.journal != nil {
			r.journal.committed(c)
		}
		if first {
			first = false
			r.log.Info("everything is programmed", "services", c.Services, "added", c.Added, "deleted", c.Deleted,
				"batches", c.Batches, "duration", c.Took, "since_start", time.Since(began))
			go returnMemory()
		}
	}
	return nil
}

// startEvents tells the cluster of Services and this node, over a client of its own:
// the source never waits behind events.
func (r *runner) startEvents(ctx context.Context) error {
	if r.options.manifests != "" {
		return nil
	}
	client, _, err := r.options.client(r.plan)
	if err != nil {
		return err
	}
	r.recorder = event.New(client.Events(), r.plan.nodeName, r.log.Logger)
	r.config.Events = r.recorder
	r.config.NodeWarn = func(reason, note string) { r.recorder.Node(corev1.EventTypeWarning, reason, note) }
	ctx, r.silence = context.WithCancel(context.WithoutCancel(ctx)) // it has the last word
	r.running.Go(func() { r.recorder.Run(ctx) })
	r.recorder.Node(corev1.EventTypeNormal, "Starting", "kube-nft "+version())
	return nil
}

// startHealth answers probes and load balancers.
func (r *runner) startHealth(ctx context.Context) error {
	var families []model.Family
	for _, f := range nft.Families {
		if _, ok := r.plan.rules.Options[f]; ok {
			families = append(families, compile.ModelFamily(f))
		}
	}
	r.health = health.NewProxy(families, unhealthyAfter(r.plan), r.options.manifests == "", countProbes(r.registry))
	r.config.Health = r.health
	checks := health.New(r.log.Logger, r.health.Healthy, func(s *model.Service, at string, err error) {
		if r.recorder != nil {
			r.recorder.Warn(s, "FailedToStartServiceHealthcheck", r.plan.nodeName+" "+at, fmt.Sprintf("node %s cannot answer the load balancer's "+
				"health checks at %s: %v; free the port, or let the Service be given another one", r.plan.nodeName, at, err))
		}
	})
	r.closeLater(checks.Close)
	r.config.HealthPorts = checks
	r.serve(ctx, &server{what: "health", address: r.plan.of.HealthzBindAddress, setting: r.options.name("healthzBindAddress"), handler: r.health.Handler()},
		"FailedToStartProxierHealthcheck")
	return nil
}

// unhealthyAfter is how long a change may wait to be programmed, as in kube-proxy.
func unhealthyAfter(p plan) time.Duration { return 2 * p.SyncPeriod }

// startMetrics serves metrics and what else kube-proxy has at that address.
func (r *runner) startMetrics(ctx context.Context) error {
	r.status = newStatus(r.registry, r.log, r.plan.of)
	address := r.plan.of.MetricsBindAddress
	if address == "" {
		return nil
	}
	// A connection of its own: scrapes never hold up a commit.
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return err
	}
	r.closeLater(func() { conn.Close() })
	r.config.Metrics, r.config.Clients = r.registry, conn
	if r.connections > 0 {
		r.config.ServiceConnections, r.config.ServiceConnectionsLimit = conn, r.connections
	}
	if r.wantsPage {
		r.addPage()
	}
	r.serve(ctx, &server{what: "metrics", address: address, setting: r.options.name("metricsBindAddress"), handler: r.status.handler(), names: []string{r.plan.nodeName}},
		"FailedToStartMetricServer")
	return nil
}

// addPage makes the status page. It is asked every few seconds, by everybody who looks,
// and so has counters by themselves: to gather all metrics reads tables.
func (r *runner) addPage() {
	counts := prometheus.NewRegistry()
	r.journal = newJournal()
	r.config.Failed, r.config.Counts = r.journal.failed, counts
	watch, started := newWatcher(), time.Now()
	r.closeLater(watch.close)
	r.status.page = newPage(watch, r.journal, func() statusObject {
		o := statusObject{Version: version(), Node: r.plan.nodeName, Mode: string(r.plan.Mode), Started: started, Healthy: r.health.Healthy()}
		o.fromMetrics(counts)
		return o
	})
}

// serve serves at an address, unless it is empty. reason is that of the event on the
// node if it cannot.
func (r *runner) serve(ctx context.Context, s *server, reason string) {
	if s.address == "" {
		return
	}
	s.log, s.hard, s.again = r.log.Logger, r.plan.of.BindAddressHardFail, listenAgain
	s.failed = func(note string) {
		if r.recorder != nil {
			r.recorder.Node(corev1.EventTypeWarning, reason, note)
		}
	}
	r.running.Go(func() {
		if err := s.run(ctx); err != nil {
			r.fail(err)
		}
	})
}

// startCleaner starts what deletes stale UDP flows.
func (r *runner) startCleaner(ctx context.Context) error {
	conn, err := conntrack.Open(conntrack.Options{})
	if err != nil {
		return err
	}
	r.closeLater(func() { conn.Close() })
	cleaner := controller.NewCleaner(conn, r.config.LocalAddrs, r.config.Logger)
	if r.config.Metrics != nil {
		cleaner.Walked = controller.MeasureWalks(r.config.Metrics)
	}
	r.config.Cleaner = cleaner
	r.running.Go(func() { cleaner.Run(ctx) })
	return nil
}

// startReloader follows the configuration file.
func (r *runner) startReloader(ctx context.Context) error {
	if r.options.file == "" {
		return nil
	}
	rules := make(chan controller.Rules, 1)
	r.config.NewRules = rules
	files := reloader{options: r.options, log: r.log, now: r.plan, every: lookAgain, tell: measureFile(r.registry), apply: func(old, p plan) {
		if p.of.Logging.Verbosity != old.of.Logging.Verbosity { // or it may be what /debug/flags/v has set
			r.log.setVerbosity(int(p.of.Logging.Verbosity))
		}
		r.status.of.Store(p.of)
		r.health.SetTimeout(unhealthyAfter(p))
		if *p.of.OOMScoreAdj != *old.of.OOMScoreAdj {
			adjustOOMScore(*p.of.OOMScoreAdj, r.log.Logger)
		}
		if p.limits != old.limits {
			p.limits.Apply(r.options.hostRoot, r.log.Logger)
		}
		select { // the last word counts
		case <-rules:
		default:
		}
		rules <- p.rules
	}}
	r.running.Go(func() {
		if err := files.run(ctx); err != nil {
			r.fail(err)
		}
	})
	return nil
}

// adjustOOMScore tells the kernel how soon to kill this process for want of memory.
// What it may not write it leaves: in a container the score is the kubelet's to set.
func adjustOOMScore(score int32, log *slog.Logger) {
	const path = "/proc/self/oom_score_adj"
	want := strconv.Itoa(int(score))
	if now, err := os.ReadFile(path); err == nil && string(now) == want+"\n" {
		return
	}
	if err := os.WriteFile(path, []byte(want), 0); err != nil {
		log.Info("oom_score_adj stays as it is", "want", want, "err", err)
	}
}
