// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/nft"
)

// fullCheck is the second line: now and then everything is looked at, in case notification
// has missed something. If nobody else has written to nf_tables since the last time,
// which the kernel tells by one number, there is nothing to look at.
//
// It goes by steps of some milliseconds with pauses between, so that commits do not wait
// for it. Each step reads elements by key, as a repair does.
type fullCheck struct {
	every time.Duration // 0 is never, but for doubt
	next  time.Time     // the next step; zero is none

	// seen is what Others said before all was last known to be right.
	seen  uint32
	known bool
	// doubtful: the next look is not left out.
	doubtful bool

	// Of the look under way:
	running bool
	others  uint32 // what Others said when it began
	table   int
	stage   stage
	names   []types.NamespacedName // of Services that are yet to be looked at
	rest    []place                // of one that is too much for a step
	// suspects looked wrong a moment ago: a notification may be on its way.
	suspects touched
	// wary is how often a table's constant part looked wrong in this stage.
	wary  int
	found int // elements and tables that were wrong
}

// stage is what a look does next with a table.
type stage uint8

const (
	lookConstant stage = iota
	lookNode
	lookServices
	lookAgain // for what was added meanwhile
)

const (
	// lookElements bounds a step: 3 µs each.
	lookElements = 2000
	// lookRest is for how many times a step's duration it then rests, so that the
	// look takes a fifth of a processor.
	lookRest  = 4
	lookPause = 20 * time.Millisecond
	// lookSettles is how long a notification may be under way.
	lookSettles = 100 * time.Millisecond
	// lookLater is when a step is tried again that does not fit in now.
	lookLater = time.Second
)

// doubt has all looked at soon, whatever the kernel says of others.
func (k *fullCheck) doubt(now time.Time) {
	k.doubtful = true
	if !k.running {
		k.next = now
	}
}

// plan says when the next look is.
func (k *fullCheck) plan(now time.Time) {
	k.next = time.Time{}
	switch {
	case k.doubtful:
		k.next = now.Add(lookLater)
	case k.every > 0:
		k.next = now.Add(k.every)
	}
}

// othersWrote reports whether others have written since all was known to be right.
func (c *Controller) othersWrote(ctx context.Context) bool {
	others, err := c.kernel.Others(ctx)
	if err != nil {
		c.log.Warn("cannot tell whether others have written to nftables, taking it that they have", "err", err)
		return true
	}
	return !c.heal.check.known || others != c.heal.check.seen
}

// noteOthers notes what Others says before the tables are first compared.
func (c *Controller) noteOthers(ctx context.Context) {
	k := &c.heal.check
	k.every = c.config.CheckEvery
	if others, err := c.kernel.Others(ctx); err == nil {
		k.seen, k.known = others, true
	}
	k.plan(time.Now())
}

// lookStep makes one step of a look, or begins one.
func (c *Controller) lookStep(ctx context.Context) error {
	k, begin := &c.heal.check, time.Now()
	if !k.running && !c.beginLook(ctx, begin) {
		return nil
	}
	c.heed(ctx)
	if !c.quiet() {
		k.next = begin.Add(lookLater)
		return nil
	}
	ended, err := c.look(ctx, c.tables[k.table])
	switch {
	case err != nil:
		c.doubtAll()
		k.running = false
		k.doubt(begin)
		return err
	case c.tables[k.table].resync:
		// It is compared as a whole now, and looked at again after that.
		k.next = time.Now().Add(lookPause)
		return c.pass(ctx)
	case !ended && (!k.suspects.none() || k.wary == 1):
		k.next = time.Now().Add(lookSettles)
	case !ended:
		k.next = time.Now().Add(max(lookPause, lookRest*time.Since(begin)))
	case k.table+1 < len(c.tables):
		k.table, k.stage, k.wary, k.next = k.table+1, lookConstant, 0, time.Now().Add(lookPause)
	default:
		c.endLook()
	}
	return nil
}

// quiet reports whether the tables are left as they should be, as far as anybody has
// said: nothing waits to be committed or repaired.
func (c *Controller) quiet() bool {
	for _, t := range c.tables {
		if t.resync || !t.touched.none() || !t.desired.Settled() {
			return false
		}
	}
	return true
}

// beginLook begins a look, unless there is nothing to look for.
func (c *Controller) beginLook(ctx context.Context, now time.Time) bool {
	k := &c.heal.check
	if !k.doubtful && !c.othersWrote(ctx) {
		c.repairs.ended(checkSkipped)
		k.plan(now)
		return false
	}
	others, err := c.kernel.Others(ctx)
	if err != nil {
		k.plan(now) // it was logged
		return false
	}
	*k = fullCheck{every: k.every, seen: k.seen, known: k.known, running: true, others: others}
	return true
}

func (c *Controller) endLook() {
	k := &c.heal.check
	k.running, k.seen, k.known = false, k.others, true
	if k.found > 0 {
		c.repairs.ended(checkFound)
	} else {
		c.repairs.ended(checkClean)
	}
	k.plan(time.Now())
}

// look makes one step with a table. It reports whether that was the last one.
func (c *Controller) look(ctx context.Context, t *table) (ended bool, err error) {
	k := &c.heal.check
	if !k.suspects.none() {
		work := k.suspects
		k.suspects = touched{}
		return false, c.convict(ctx, t, work)
	}
	work := touched{since: time.Now(), missed: true}
	switch k.stage {
	case lookConstant, lookAgain:
		wrong, err := c.lookConstant(ctx, t)
		switch {
		case err != nil:
			return false, err
		case wrong != nil:
			return c.distrust(t, wrong), nil
		case k.stage == lookAgain:
			return true, nil
		}
		k.stage, k.wary = lookNode, 0
		return false, nil
	case lookNode:
		for e := range t.desired.NodeElements() {
			work.want(e)
		}
		for _, s := range t.schema.Sets() {
			if s.Ranged() {
				put(&work.ranges, s)
			}
		}
		k.names, k.rest = k.names[:0], nil
		for s := range t.desired.Services() {
			k.names = append(k.names, s.Name())
		}
		k.stage = lookServices
	case lookServices:
		k.fill(&work, t)
		if len(k.names)+len(k.rest) == 0 {
			k.names, k.stage, k.wary = nil, lookAgain, 0
		}
	}
	delta, err := c.differs(ctx, t, work)
	if errors.Is(err, nft.ErrSchema) {
		k.wary++ // it needs no second look
		return c.distrust(t, err), nil
	}
	if err == nil && !delta.Empty() {
		k.suspects = of(delta)
	}
	return false, err
}

// fill takes as many elements of Services as one step looks at. What changes of a large
// Service between its steps is written by ourselves, and its elements that are gone by
// then are looked at as what should not be there.
func (k *fullCheck) fill(work *touched, t *table) {
	for len(work.places) < lookElements {
		if n := min(len(k.rest), lookElements-len(work.places)); n > 0 {
			for _, p := range k.rest[:n] {
				put(&work.places, p)
			}
			k.rest = k.rest[n:]
			continue
		}
		last := len(k.names) - 1
		if k.rest = nil; last < 0 {
			return
		}
		for e := range t.desired.Needed(k.names[last]) {
			if len(work.places) < lookElements {
				work.want(e)
			} else if !e.Set.Ranged() {
				k.rest = append(k.rest, place{e.Set, e.Key})
			}
		}
		k.names = k.names[:last]
	}
}

// want notes an element to look at; ranges are looked at with their sets.
func (t *touched) want(e nft.Element) {
	if !e.Set.Ranged() {
		put(&t.places, place{e.Set, e.Key})
	}
}

// of is what a delta changes, as something that was missed.
func of(d nft.Delta) touched {
	work := touched{since: time.Now(), missed: true}
	for _, all := range [...][]nft.Element{d.Delete, d.Add} {
		for _, e := range all {
			if e.Set.Ranged() {
				put(&work.ranges, e.Set)
			} else {
				put(&work.places, place{e.Set, e.Key})
			}
		}
	}
	return work
}

// convict repairs what still looks wrong though notifications had time to come.
func (c *Controller) convict(ctx context.Context, t *table, work touched) error {
	done, start := Commit{}, time.Now()
	t.sync.begin()
	err := c.mend(ctx, t, work, &done)
	t.sync.end(time.Since(start), err != nil)
	if err != nil {
		return fmt.Errorf("repair table %s %s: %w", t.schema.Family, nft.TableName, err)
	}
	if done.Batches > 0 {
		c.report(start, done)
	}
	return nil
}

// lookConstant looks at all but elements, and whether there are more of them than there
// should be. It returns what is wrong.
func (c *Controller) lookConstant(ctx context.Context, t *table) (wrong, err error) {
	have, counts, err := c.kernel.Inspect(ctx, t.schema)
	switch {
	case errors.Is(err, nft.ErrMissing), errors.Is(err, nft.ErrSchema):
		return err, nil
	case err != nil:
		return nil, err
	}
	affinities, _ := t.desired.Affinities()
	switch {
	case have.Features != t.schema.Features:
		return errors.New("it has sets and chains that no Service needs, or lacks some"), nil
	case !sameAffinities(affinities, have.Affinities):
		return errors.New("what Service ports own there is not what they should"), nil
	case t.desired.Lacks(have.Chains):
		return errors.New("a chain is missing"), nil
	}
	want := t.desired.Counts()
	for set, n := range counts {
		if n > want[set] {
			return fmt.Errorf("%s has %d elements too many", nft.Set(set), n-want[set]), nil
		}
	}
	return nil, nil
}

func sameAffinities(want []nft.Affinity, have map[nft.Port]nft.Affinity) bool {
	for _, a := range want {
		if have[a.Port] != a {
			return false
		}
	}
	return len(want) == len(have)
}

// distrust has a table compared as a whole that looks wrong for the second time: at the
// first time a notification may be on its way. Should that not help it is said and left,
// which is reported as the end of the look at this table.
func (c *Controller) distrust(t *table, why error) (ended bool) {
	k := &c.heal.check
	k.wary++
	switch k.wary {
	case 1:
	case 2:
		t.healing.merge(touched{since: time.Now(), missed: true, constant: why.Error()})
		t.resync = true
	default:
		k.found++
		c.log.Error("table is still not as it should be after it was compared", "table", t.schema.Family.String()+" "+nft.TableName, "err", why)
		return true
	}
	return false
}
