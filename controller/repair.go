// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// healing is what the Controller knows of changes by others.
type healing struct {
	fight fight
	// mendAt is when the tables that were touched are to be put right; zero is never.
	mendAt time.Time
	// busy: the pass under way repairs what somebody has told of, by the one who
	// touched it last.
	busy  bool
	by    nft.Process
	check fullCheck
	// alarm rings when the first of all this is due.
	alarm *time.Timer
}

// driftSettles is how long after a change of more than elements the table is compared:
// a script makes several.
const driftSettles = 10 * time.Millisecond

// heed takes what was heard of others.
func (c *Controller) heed(ctx context.Context) {
	heard, now := c.rumours.take(), time.Now()
	c.repairs.count(heard.commits)
	news := false
	for _, t := range c.tables {
		h := heard.tables[t.schema.Family]
		if h == nil {
			continue
		}
		if t.touched.none() && !t.resync {
			t.metrics.drifts.Inc()
		}
		news = true
		t.touched.merge(*h)
		c.queue.noteQueued(t.desired.Model())
	}
	if news && c.heal.mendAt.IsZero() {
		wait := c.heal.fight.provoked(now)
		if wait == 0 {
			// One that is put off on purpose is no sign of ill health.
			c.config.Health.Begun()
			wait = c.settles()
		}
		c.heal.mendAt = now.Add(wait)
	}
	c.repairs.waiting(c.heal.fight)
	if heard.lost {
		c.log.Warn("notifications of changes by others were lost, looking at everything")
		c.heal.check.doubt(now)
	}
	if heard.began && c.othersWrote(ctx) {
		c.heal.check.doubt(now)
	}
}

// settles is how long to wait for more of the same: only before much work.
func (c *Controller) settles() time.Duration {
	for _, t := range c.tables {
		if t.touched.whole() {
			return driftSettles
		}
	}
	return 0
}

// alarm returns when there is something to do that nobody wakes the loop for; nil is
// never. While passes fail the retry does all of it.
func (c *Controller) alarm() <-chan time.Time {
	h := &c.heal
	if h.alarm == nil {
		h.alarm = time.NewTimer(time.Hour)
	}
	next := h.check.next
	if at := h.mendAt; !at.IsZero() && (next.IsZero() || at.Before(next)) {
		next = at
	}
	if h.fight.told {
		if over := h.fight.ended.Add(peace + time.Second); next.IsZero() || over.Before(next) {
			next = over
		}
	}
	if c.failing || next.IsZero() {
		return nil
	}
	h.alarm.Reset(time.Until(next))
	return h.alarm.C
}

// due returns what is to be done now; nil is nothing.
func (c *Controller) due(now time.Time) func(context.Context) error {
	h := &c.heal
	if h.fight.over(now) {
		c.log.Info("nobody has changed our tables for a while, repairs are at once again", "quiet_for", now.Sub(h.fight.ended))
		h.fight = fight{}
		c.repairs.waiting(h.fight)
	}
	switch {
	case !h.mendAt.IsZero() && !now.Before(h.mendAt):
		return c.pass
	case !h.check.next.IsZero() && !now.Before(h.check.next):
		return c.lookStep
	}
	return nil
}

// repair puts right what others have touched, as far as it is time to. What needs more
// than elements is left to the comparison that follows. It comes before anything new is
// compiled: what the tables should be is then what they were left as.
func (c *Controller) repair(ctx context.Context, done *Commit) error {
	h, now := &c.heal, time.Now()
	due := !h.mendAt.IsZero() && (h.fight.delay == 0 || !now.Before(h.mendAt))
	waits := false
	for _, t := range c.tables {
		switch {
		case t.touched.none():
		case t.resync, due && t.touched.whole():
			h.busy, h.by = true, t.touched.by
			t.healing.merge(t.touched)
			t.touched, t.resync = touched{}, true
		case !due:
			waits = true
		case !t.desired.Settled():
			waits, h.mendAt = true, now // behind what is about to be committed
		default:
			h.busy, h.by = true, t.touched.by
			work := t.touched
			t.touched = touched{}
			if err := c.mend(ctx, t, work, done); err != nil {
				return fmt.Errorf("repair table %s %s: %w", t.schema.Family, nft.TableName, err)
			}
		}
	}
	if !waits {
		h.mendAt = time.Time{}
	}
	return nil
}

// mend looks at what was touched in a table, and writes what is wrong there. After an
// error the comparison that follows is to put it right, and to tell of it.
func (c *Controller) mend(ctx context.Context, t *table, work touched, done *Commit) error {
	delta, err := c.differs(ctx, t, work)
	switch {
	case errors.Is(err, nft.ErrSchema):
		work.constant = err.Error()
		t.healing.merge(work)
		t.resync = true
		return nil
	case err != nil:
		t.healing.merge(work)
		return err
	case delta.Empty():
		return nil
	}
	t.sync.wrote = true
	if err := c.apply(ctx, done, nft.Change{Schema: t.schema, Delta: delta}); err != nil {
		t.healing.merge(work)
		return err
	}
	if n := changed(delta); n > 0 {
		c.mended(t, work, RepairElements, n, firstOf(delta))
	}
	return nil
}

// differs returns what there is to write for a table to be right where it was touched.
func (c *Controller) differs(ctx context.Context, t *table, work touched) (nft.Delta, error) {
	keys, sets := work.elements(), []nft.Set(nil)
	for s := range work.ranges {
		sets = append(sets, s)
	}
	keys, sets = present(t.schema, keys, sets)
	have, err := nft.Contents{}, error(nil)
	if len(keys)+len(sets) > 0 {
		if have, err = c.kernel.Look(ctx, t.schema, keys, sets); err != nil {
			return nft.Delta{}, err
		}
	}
	diff := nft.NewDiff(have)
	for _, e := range keys {
		if v, ok := t.desired.Find(e.Set, e.Key); ok {
			e.Value = v
			diff.Want(e)
		}
	}
	for _, s := range sets {
		for e := range t.desired.InRanges(s) {
			diff.Want(e)
		}
	}
	diff.Rest()
	for p := range work.clients {
		if keep, ok := t.desired.Keep(p); ok {
			diff.Delta.Keep = append(diff.Delta.Keep, keep)
		}
	}
	return diff.Delta, nil
}

// present leaves out what is in sets that the table does not have: a feature may have
// gone since.
func present(s *nft.Schema, keys []nft.Element, sets []nft.Set) ([]nft.Element, []nft.Set) {
	var has [len(nft.Sets)]bool
	for _, set := range s.Sets() {
		has[set] = true
	}
	there, asked := keys[:0], sets[:0]
	for _, e := range keys {
		if has[e.Set] {
			there = append(there, e)
		}
	}
	for _, set := range sets {
		if has[set] {
			asked = append(asked, set)
		}
	}
	return there, asked
}

// changed is how many elements a delta changes; one that is replaced counts once.
func changed(d nft.Delta) int {
	added := make(map[place]struct{}, len(d.Add))
	for _, e := range d.Add {
		added[place{e.Set, e.Key}] = struct{}{}
	}
	n := len(d.Add)
	for _, e := range d.Delete {
		if _, replaced := added[place{e.Set, e.Key}]; !replaced {
			n++
		}
	}
	return n
}

// firstOf is one of the elements that a delta changes.
func firstOf(d nft.Delta) string {
	if len(d.Add) > 0 {
		return d.Add[0].String()
	}
	return d.Delete[0].String()
}

// settle notes that a pass ended, well or with an error, and what it repaired.
func (c *Controller) settle(start time.Time, err error) {
	for _, t := range c.tables {
		if err == nil && !t.healing.none() {
			if t.did != "" {
				c.mended(t, t.healing, t.did, t.elements, t.healing.what())
			}
			t.healing = touched{}
		}
	}
	h := &c.heal
	if !h.busy {
		return // nobody has provoked it: the check found something
	}
	h.busy = false
	now := time.Now()
	if h.fight.repaired(now, now.Sub(start)) {
		c.tellFight(now)
	}
	c.repairs.waiting(h.fight)
}

// tellFight says, once, that somebody goes on changing our tables.
func (c *Controller) tellFight(now time.Time) {
	f, by := c.heal.fight, c.heal.by
	c.log.Warn("somebody else goes on changing our tables: each change is put right, but packets may miss meanwhile, and repairs wait longer",
		"process", by.String(), "repairs", f.count, "for", now.Sub(f.began).Round(time.Second), "wait", f.delay,
		"mend", "stop that process, or have it leave the tables "+nft.TableName+" alone")
	if c.config.NodeWarn != nil {
		c.config.NodeWarn(ReasonTableContested, fmt.Sprintf("%s goes on changing the nftables tables %s of this node: Services may not be reached while they are put right; stop it, or have it leave these tables alone",
			by, nft.TableName))
	}
}
