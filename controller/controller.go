// SPDX-License-Identifier: Apache-2.0

// Package controller keeps the tables in step with the cluster: objects come in
// from a source, and what they mean goes to the kernel, one transaction for all
// that has come in since the last one.
//
// It opens no socket. The kernel is behind Dataplane, objects come from a
// source.Source, and what a Service means is decided in package compile.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
)

// Dataplane is the kernel, as the controller needs it; nft/kernel.Conn is one.
type Dataplane interface {
	// Read returns what the table of the schema's family holds, or nft.ErrMissing,
	// nft.ErrSchema or nft.ErrForeign.
	Read(context.Context, *nft.Schema) (nft.Contents, error)
	// Apply commits all changes in one transaction, or none of them.
	Apply(context.Context, ...nft.Change) error
	// Reset makes the table anew, in one transaction.
	Reset(context.Context, nft.Table) error
	// Look returns what a table holds of some elements, by key, and in some sets.
	Look(ctx context.Context, s *nft.Schema, keys []nft.Element, sets []nft.Set) (nft.Contents, error)
	// Inspect returns what Read does but elements, and how many there are; -1 is not
	// known.
	Inspect(context.Context, *nft.Schema) (nft.Contents, nft.Counts, error)
	// Others returns a number that changes when somebody else writes to nf_tables.
	Others(context.Context) (uint32, error)
	// Watch says when it listens, and reports changes of our tables by others until
	// ctx ends.
	Watch(ctx context.Context, listening func(), changed func(nft.Foreign)) error
}

// Config is what a Controller depends on.
type Config struct {
	// NodeName is the name of this node; endpoints on it are local.
	NodeName string
	Rules
	// NewRules brings rules that replace those above; nil never does.
	NewRules <-chan Rules
	// ProxyName is the name by which Services choose this proxy; empty serves those that
	// name none.
	ProxyName string
	// NoExternalIPs leaves out spec.externalIPs of Services.
	NoExternalIPs bool
	// NodeIPs lists this node's addresses until, and unless, a Node object tells.
	NodeIPs func() []netip.Addr
	// LocalAddrs lists the addresses of this host; needed for NodePorts.CIDRs.
	LocalAddrs func() ([]netip.Addr, error)
	// AddrsChanged says that NodeIPs or LocalAddrs may have something new to say;
	// nil never does.
	AddrsChanged <-chan struct{}
	// LocalPorts serves node ports on loopback. Nil is nobody.
	LocalPorts LocalPorts
	// HealthPorts answers load balancers that ask for endpoints. Nil is nobody.
	HealthPorts HealthPorts
	// Health is told how far the tables follow. Nil is nobody.
	Health Health
	Logger *slog.Logger
	// Cleaner deletes UDP flows that a commit leaves stale; nil is none. Its Run is
	// the caller's to start.
	Cleaner *Cleaner
	// Metrics is where the Controller registers its metrics. Nil is nowhere.
	Metrics prometheus.Registerer
	// Counts is where it registers, besides, the counters of commits, resyncs and drifts
	// alone, for those who ask often: to read them asks the kernel nothing. Nil is
	// nowhere.
	Counts prometheus.Registerer
	// Clients counts those that the kernel remembers, for Metrics; nil leaves it out.
	Clients ClientCounter
	// ServiceConnections counts those of Service ports, for Metrics; nil leaves it out,
	// and tables without Options.Counters are. At most ServiceConnectionsLimit ports
	// are told of, each family of a port by itself.
	ServiceConnections      ConnectionCounter
	ServiceConnectionsLimit int
	// Events tells the owners of Services. Nil is nobody.
	Events Events
	// NodeWarn says something of this node where its owners look. Nil is nobody.
	NodeWarn func(reason, note string)
	// CheckEvery is how often all tables are looked at in case a change by somebody
	// else was missed, if anybody else has written at all. 0 is never.
	CheckEvery time.Duration
	// Committed is called after each successful pass with what it changed. Nil is
	// nobody.
	Committed func(Commit)
	// Failed is called after each pass that failed, with why. Nil is nobody.
	Failed func(error)
}

// Commit is what one pass did.
type Commit struct {
	Services int           // Services that were looked at
	Added    int           // elements
	Deleted  int           // elements
	Resync   bool          // the table was read and compared as a whole
	Took     time.Duration // from the first look at the events to the kernel's answer
	Batches  int           // transactions
}

// Controller is the loop. The goroutine of Run owns everything in it but the
// queue, which sources fill.
type Controller struct {
	config Config
	log    *slog.Logger
	kernel Dataplane
	queue  *queue
	state  *model.State
	node   *model.Node
	tables []*table
	// touched are the UDP frontends that changed since the last commit, or may have.
	touched map[nft.Family]frontends
	// endpoints is room for those of one Service port.
	endpoints []model.PortEndpoint
	// untold are the Services that LocalPorts and HealthPorts are to be told of.
	untold  map[types.NamespacedName]*model.Entry
	metrics metrics
	// rumours are what others did, repairs what became of it.
	rumours *rumours
	heal    healing
	repairs *repairs
	// triggers are those of what the kernel does not have yet.
	triggers triggers

	questions chan asked
	ended     chan struct{} // closed when Run returns
	failing   bool          // the last pass did
	changed   time.Time     // when something was last committed
}

// table is one family's table: what it should be, and whether it needs comparing
// with what it is.
type table struct {
	schema  *nft.Schema
	desired *compile.Table
	resync  bool
	adopted bool
	changed bool // the rules are to be others than those that were written
	warned  bool // that nothing is known of pods
	// touched is what others have touched; healing that of it which the pass under way
	// compares as a whole, did what it had to do and with how many elements.
	touched  touched
	healing  touched
	did      RepairKind
	elements int
	metrics  tableMetrics
	sync     syncMetrics
}

// New returns a Controller; Run starts it.
func New(c Config, kernel Dataplane) *Controller {
	if c.Health == nil {
		c.Health = noHealth{}
	}
	ctl := &Controller{
		config: c,
		log:    c.Logger,
		kernel: kernel,
		queue:  newQueue(c.NodeName, c.Logger),
		state:  model.NewState(),
		untold: make(map[types.NamespacedName]*model.Entry),

		triggers: make(triggers),
		rumours:  newRumours(),

		questions: make(chan asked),
		ended:     make(chan struct{}),
	}
	ctl.queue.events, ctl.queue.proxyName, ctl.queue.noExternalIPs = c.Events, c.ProxyName, c.NoExternalIPs
	for _, f := range nft.Families {
		if o, ok := c.Options[f]; ok {
			ctl.tables = append(ctl.tables, &table{schema: nft.NewSchema(f, o), desired: compile.NewTable(f), resync: true})
		}
	}
	ctl.measure()
	return ctl
}

// Retries after an error wait this long, doubling.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// waitingNotice is how often it is said that the source has not synced.
const waitingNotice = 10 * time.Second

// Run keeps the tables in step with the source until ctx ends. Nothing is written
// before the source has synced. When Run returns the tables stay as they are. It
// returns an error if the source gives up, or if a table of our name is not ours.
func (c *Controller) Run(ctx context.Context, src source.Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer close(c.ended)
	sourceDone := make(chan error, 1)
	go func() { sourceDone <- src.Run(ctx, c.queue) }()
	c.noteOthers(ctx)
	watching := false
	var retry <-chan time.Time
	delay := firstRetry
	waiting := time.NewTicker(waitingNotice)
	defer waiting.Stop()
	again := time.NewTicker(sayAgain)
	defer again.Stop()
	for {
		wake := c.queue.wake
		if c.failing {
			wake = nil // what comes in waits for the retry, or a busy cluster would undo the delay
		}
		do := c.pass
		select {
		case <-ctx.Done():
			c.leave(ctx)
			return nil
		case err := <-sourceDone:
			if err != nil {
				return fmt.Errorf("source: %w", err)
			}
			sourceDone = nil // it has said all that it will ever say
			continue
		case <-waiting.C:
			if c.ready() {
				waiting.Stop()
			} else {
				c.log.Info("waiting for all Services and EndpointSlices, nothing is programmed before")
			}
			continue
		case <-again.C:
			c.warnAgain()
			continue
		case q := <-c.questions:
			q.run(c)
			continue
		case <-c.rumours.wake:
			c.heed(ctx)
			continue
		case now := <-c.alarm():
			if do = c.due(now); do == nil {
				continue
			}
		case r := <-c.config.NewRules:
			if c.setRules(r); c.failing {
				continue
			}
		case <-c.config.AddrsChanged:
			if c.setNodeIPs(); c.failing {
				continue
			}
		case <-wake:
		case <-retry:
		}
		retry = nil
		err := do(ctx)
		c.failing = err != nil
		switch {
		case err == nil:
			delay = firstRetry
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nft.ErrForeign):
			return err
		default:
			c.metrics.failed.Inc()
			if c.config.Failed != nil {
				c.config.Failed(err)
			}
			// Nor is somebody who goes on changing our tables answered at once.
			wait := max(delay, c.heal.fight.delay)
			c.log.Error("commit failed, what is programmed stays; will retry", "err", err, "after", wait)
			retry = time.After(wait)
			delay = min(2*delay, lastRetry)
		}
		if !watching && c.ready() {
			watching = true
			go c.watch(ctx)
		}
	}
}

// ready reports whether every table is as it should be.
func (c *Controller) ready() bool {
	for _, t := range c.tables {
		if t.resync {
			return false
		}
	}
	return true
}
