// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// maxBatch bounds the elements of one transaction where order allows several:
// the kernel holds its nftables lock for 20 to 100 ms for as many.
const maxBatch = 20_000

// resyncAll compares tables with what they should be and commits the difference.
// Start, drift and retry are this one path: adopting a table at start is the
// first comparison.
func (c *Controller) resyncAll(ctx context.Context, done *Commit) error {
	done.Resync = true
	dirty := c.state.TakeDirty()
	done.Services += len(dirty)
	for _, t := range c.tables {
		if err := c.resync(ctx, t, dirty, done); err != nil {
			// The other tables have not seen these Services yet.
			for _, other := range c.tables {
				other.resync = true
			}
			for _, e := range dirty {
				c.state.Mark(e)
			}
			return fmt.Errorf("table %s %s: %w", t.schema.Family, nft.TableName, err)
		}
	}
	return nil
}

func (c *Controller) resync(ctx context.Context, t *table, dirty []*model.Entry, done *Commit) error {
	have, err := nft.Contents{}, error(nil)
	if t.resync {
		t.sync.compared = true
		have, err = c.kernel.Read(ctx, t.schema)
	}
	switch {
	case errors.Is(err, nft.ErrMissing), errors.Is(err, nft.ErrSchema):
	case err != nil:
		return fmt.Errorf("read: %w", err)
	}
	if !t.adopted {
		t.desired.Adopt(have)
		cidrs := c.state.ServiceCIDRs.Of(t.desired.Model())
		if c.config.ProxyName == "" && !c.state.ServiceCIDRs.Known() {
			// The source may have synced without: a cluster that had any still has.
			cidrs = have.Ranges(nft.ServiceCIDRs)
		}
		t.desired.SetServiceCIDRs(cidrs)
		c.touchAdopted(t.desired, have)
		c.setNodeIPs()
	}
	t.desired.Reserve(len(dirty))
	for _, e := range dirty {
		c.compile(t.desired, e)
	}
	t.desired.AdoptDone()
	if !t.resync {
		return nil // the next commitDirty takes its delta
	}
	chains, conflicts := t.desired.Settle()
	c.reportConflicts(conflicts)
	counts := t.desired.Counts()
	before := done.Added + done.Deleted
	switch {
	case errors.Is(err, nft.ErrMissing):
		if t.adopted {
			t.did = RepairTable
			c.tell("table is gone, making it anew", "table", t.schema.Family.String()+" "+nft.TableName)
		}
		err = c.create(ctx, t, chains, done)
	case err != nil:
		if t.changed {
			c.log.Info("replacing the table, other rules are asked for", "table", t.schema.Family.String()+" "+nft.TableName)
		} else {
			t.did = RepairRules
			c.tell("replacing the table", "reason", err)
		}
		err = c.grow(ctx, t, chains, done)
	case !have.Sizes.Hold(nft.Only(counts, have.Features)):
		err = c.grow(ctx, t, chains, done)
	default:
		t.schema = t.schema.With(have.Features)
		t.schema.Sizes = have.Sizes
		if err = c.converge(ctx, t, chains, have, done); errors.Is(err, errNoRoom) {
			err = c.grow(ctx, t, chains, done)
		}
	}
	if err != nil {
		return err
	}
	if t.elements = done.Added + done.Deleted - before; t.did == "" && t.elements > 0 {
		t.did = RepairElements
	}
	t.resync, t.adopted, t.changed = false, true, false
	return nil
}

// adapt gives the schema other features, and room in sets that are new for what
// the table should hold. It returns a change that makes them so, empty if they are.
func (t *table) adapt(f nft.Features) nft.Change {
	was := t.schema
	if f == was.Features {
		return nft.Change{Schema: was}
	}
	t.schema = was.With(f)
	fitting := nft.SizesFor(t.desired.Counts())
	had := was.Sets()
	for _, set := range t.schema.Sets() {
		if !slices.Contains(had, set) {
			t.schema.Sizes[set] = fitting[set]
		}
	}
	return nft.Change{Was: was, Schema: t.schema, Delta: nft.Delta{Gone: t.desired.DropChains(was.Features &^ f)}}
}

// whole is the table as it should be, made anew.
func (t *table) whole(chains []nft.Chain) nft.Table {
	t.schema = t.schema.With(t.desired.Features())
	t.schema.Sizes = nft.SizesFor(t.desired.Counts())
	w := nft.Table{Schema: t.schema, Chains: chains, Elements: t.desired.All()}
	w.Affinities, w.Keep = t.desired.Affinities()
	return w
}

// grow makes a table anew as a whole, in one transaction: there is not a moment
// without rules, but the counters start again. It serves when a set is too small
// and when a table's constant part is not what it should be.
func (c *Controller) grow(ctx context.Context, t *table, used []nft.Chain, done *Commit) error {
	start := time.Now()
	chains := c.spareChains(t, used)
	if err := c.kernel.Reset(ctx, t.whole(chains)); err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	t.desired.SetChains(chains)
	done.Batches++
	done.Added += total(t.desired.Counts())
	c.log.Info("table replaced", "table", t.schema.Family.String()+" "+nft.TableName,
		"elements", total(t.desired.Counts()), "duration", time.Since(start))
	return nil
}

// create makes a table that is not there, in bounded transactions: what the
// cluster needs to start first, and what refuses packets last.
func (c *Controller) create(ctx context.Context, t *table, used []nft.Chain, done *Commit) error {
	chains := c.spareChains(t, used)
	bare := t.whole(chains)
	bare.Affinities, bare.Keep, bare.Elements = nil, nil, func(func(nft.Element) bool) {}
	if err := c.kernel.Reset(ctx, bare); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	done.Batches++
	have := nft.Contents{Features: t.schema.Features}
	for _, chain := range chains {
		have.PutChain(chain)
	}
	return c.converge(ctx, t, used, have, done)
}

// errNoRoom says that a set would have to hold more than it can, because what is
// to go is deleted after what is to come is added.
var errNoRoom = errors.New("no room for old and new elements")

// converge commits the difference between what a table holds and what it should
// hold, in bounded transactions, each of them with whole Services unless one alone is
// too much for it.
func (c *Controller) converge(ctx context.Context, t *table, used []nft.Chain, have nft.Contents, done *Commit) error {
	step := &convergence{c: c, t: t, done: done, held: have.Counts()}
	chains := slices.Collect(maps.Keys(have.Chains))
	remembers := len(have.Affinities) > 0 // the comparison uses have up
	step.diff = nft.NewDiff(have)
	// Features come before what needs them, and go after it.
	features := t.desired.Features()
	step.adapt(ctx, have.Features|features)
	for _, chain := range used {
		step.diff.WantChain(chain)
	}
	affinities, keep := t.desired.Affinities()
	for _, a := range affinities {
		step.diff.WantAffinity(a)
		step.bound(ctx)
	}
	t.desired.SetChains(append(chains, step.diff.Delta.Chains...))
	for e := range t.desired.Shared() {
		step.want(e)
	}
	services, urgent := c.ordered(t)
	for i, service := range services {
		for e := range t.desired.Elements(service) {
			step.want(e)
			step.split(ctx)
		}
		if i+1 == urgent {
			step.flush(ctx)
		}
		step.bound(ctx)
	}
	for _, e := range step.last {
		step.diff.Want(e)
		step.bound(ctx)
	}
	step.flush(ctx)
	step.clear(ctx)
	if remembers {
		step.forget(ctx, keep)
	}
	step.adapt(ctx, features)
	return step.err
}

// convergence is a converge under way: while the kernel commits one transaction
// the next one gathers. The first error ends it.
type convergence struct {
	c    *Controller
	t    *table
	done *Commit
	diff *nft.Diff
	held nft.Counts
	last []nft.Element // what refuses packets
	sent nft.Delta     // the transaction under way, or the room of the last one
	busy chan error    // its outcome; nil if there is none
	err  error
}

// want asks for an element, now or, if it refuses packets, when all others are in.
func (s *convergence) want(e nft.Element) {
	if refuses(e.Set) {
		s.last = append(s.last, e)
	} else {
		s.diff.Want(e)
	}
}

// adapt changes the table's features.
func (s *convergence) adapt(ctx context.Context, f nft.Features) {
	s.wait()
	if s.err != nil {
		return
	}
	if change := s.t.adapt(f); !change.Empty() {
		s.err = s.c.apply(ctx, s.done, change)
	}
}

// bound commits what has gathered once it is enough for one transaction.
func (s *convergence) bound(ctx context.Context) {
	if s.diff.Delta.Size() >= maxBatch {
		s.flush(ctx)
	}
}

// split commits what has gathered in the midst of a Service with more endpoints than
// one transaction should have. Its endpoints come before what leads to them, so that
// there is no moment at which a packet finds none.
func (s *convergence) split(ctx context.Context) {
	if s.diff.Delta.Size() >= 2*maxBatch {
		s.flush(ctx)
	}
}

// flush commits what has gathered.
func (s *convergence) flush(ctx context.Context) {
	s.wait()
	gathered := s.diff.Delta
	s.diff.Delta = s.sent.Emptied()
	s.commit(ctx, gathered)
}

// wait waits for the transaction under way.
func (s *convergence) wait() {
	if s.busy != nil {
		s.err = errors.Join(s.err, <-s.busy)
		s.busy = nil
	}
}

// clear deletes what nobody wants: the ways to it first.
func (s *convergence) clear(ctx context.Context) {
	s.diff.Rest()
	stale := s.diff.Delta.Delete
	slices.Reverse(stale)
	for part := range slices.Chunk(stale, maxBatch) {
		s.commit(ctx, nft.Delta{Delete: part})
	}
	s.commit(ctx, nft.Delta{Affinities: s.diff.Delta.Affinities})
}

// forget forgets clients of endpoints that left while nobody watched. Mostly there
// are none, and nothing is written.
func (s *convergence) forget(ctx context.Context, keep []nft.Keep) {
	s.wait()
	if s.err != nil {
		return
	}
	err := s.c.kernel.Apply(ctx, nft.Change{Schema: s.t.schema, Delta: nft.Delta{Keep: keep}})
	if err != nil {
		s.err = fmt.Errorf("forget clients: %w", err)
	}
}

// commit starts a transaction, unless there was an error.
func (s *convergence) commit(ctx context.Context, d nft.Delta) {
	s.wait()
	s.sent = d
	if s.err != nil || d.Empty() {
		return
	}
	if d.Count(&s.held); !s.t.schema.Sizes.Hold(nft.Only(s.held, s.t.schema.Features)) {
		s.err = errNoRoom
		return
	}
	busy := make(chan error, 1)
	s.busy = busy
	go func() { busy <- s.c.apply(ctx, s.done, nft.Change{Schema: s.t.schema, Delta: d}) }()
}

func refuses(s nft.Set) bool {
	return s == nft.NoEndpoints || s == nft.NoEndpointsNodePorts || s == nft.ClusterIPs || s == nft.ServiceCIDRs
}

// ordered lists the Services of a table: first those that a starting cluster
// waits for, and how many they are, then the others in no order.
func (c *Controller) ordered(t *table) (services []*compile.Service, urgent int) {
	var first, rest []*compile.Service
	for s := range t.desired.Services() {
		if c.urgent(s.Name()) {
			first = append(first, s)
		} else {
			rest = append(rest, s)
		}
	}
	slices.SortFunc(first, func(a, b *compile.Service) int { return model.CompareNames(a.Name(), b.Name()) })
	return append(first, rest...), len(first)
}

// urgent reports whether others wait for a Service: the API server, without which
// the network plugin of a new node does not start, and cluster DNS, known by its
// port in kube-system.
func (c *Controller) urgent(name types.NamespacedName) bool {
	if name.Namespace != "kube-system" {
		return name.Namespace == "default" && name.Name == "kubernetes"
	}
	s := c.state.Service(name)
	return s != nil && slices.ContainsFunc(s.Ports, func(p model.ServicePort) bool { return p.Port == 53 })
}

// manyElements is from how many elements on it is worth making chains in advance.
const manyElements = 20_000

// spareEndpoints is up to how many endpoints of a Service chains are made in advance.
const spareEndpoints = 64

// spareChains lists the chains to make with a table: those in use, and in a large
// table also those that Services may need soon. To make one later costs the kernel a
// walk over all endpoints for each of its rules, about 0.1 µs an element
// (nf_tables_api.c, nf_tables_bind_set). But one that nobody needs costs, too: some ns
// for each endpoint that is ever added (nft_add_set_elem). So there are those for up to
// twice the largest number, at most 64, and above 64 only the ones beside those in use.
func (c *Controller) spareChains(t *table, used []nft.Chain) []nft.Chain {
	if total(t.desired.Counts()) < manyElements {
		return used
	}
	all := make(map[nft.Chain]struct{})
	largest := make(map[nft.ChainKind]uint32)
	for _, chain := range used {
		all[chain] = struct{}{}
		largest[chain.Kind] = max(largest[chain.Kind], chain.N)
		if n := int(chain.N); n >= spareEndpoints {
			for i := n - n/16; i <= n+1; i++ {
				all[nft.Chain{Kind: chain.Kind, N: nft.Modulus(i)}] = struct{}{}
			}
		}
	}
	for kind, n := range largest {
		for i := 1; i <= int(min(2*n, spareEndpoints)); i++ {
			if chain := (nft.Chain{Kind: kind, N: nft.Modulus(i)}); chain.Balances() {
				all[chain] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), nft.Chain.Compare)
}

func total(counts nft.Counts) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
