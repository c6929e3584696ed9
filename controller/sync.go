// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// pass takes all that has come in and, once the source has synced, compiles the
// Services that it may affect and commits the difference in one transaction. A
// table that may not be what it was left as is read and compared instead. After
// an error every table is: what the kernel has is then asked, not assumed.
func (c *Controller) pass(ctx context.Context) error {
	start := time.Now()
	done := Commit{}
	c.begin()
	c.heed(ctx)
	err := c.repair(ctx, &done)
	if err == nil {
		pending, synced := c.queue.take()
		c.merge(pending)
		if !synced {
			return nil
		}
		c.config.Health.Begun()
		err = c.program(ctx, &done)
	}
	c.settle(start, err)
	if err != nil {
		c.doubtAll()
		if ctx.Err() == nil {
			c.failed(start)
		}
		return err
	}
	c.programmed(start)
	c.tellServices()
	c.checkFlows()
	c.config.Health.Updated()
	c.report(start, done)
	return nil
}

// program brings what has changed into the kernel.
func (c *Controller) program(ctx context.Context, done *Commit) error {
	if !c.ready() {
		if err := c.resyncAll(ctx, done); err != nil {
			return err
		}
	}
	return c.commitDirty(ctx, done)
}

// begin begins a pass.
func (c *Controller) begin() {
	for _, t := range c.tables {
		t.sync.begin()
		t.did, t.elements = "", 0
	}
}

// doubtAll has all tables compared by the next pass.
func (c *Controller) doubtAll() {
	for _, t := range c.tables {
		t.resync = true
	}
}

// merge brings what has come in into the state.
func (c *Controller) merge(in changes) {
	for name, s := range in.services {
		if s == nil {
			c.state.DeleteService(name)
		} else {
			c.state.SetService(s)
		}
	}
	for name, s := range in.slices {
		c.noteTriggers(name, s, in.triggers[name].times)
		if s == nil {
			c.state.DeleteSlice(name)
		} else {
			c.state.SetSlice(s)
		}
	}
	changed := false
	for name, s := range in.cidrs {
		if s == nil {
			changed = c.state.ServiceCIDRs.Delete(name) || changed
		} else {
			changed = c.state.ServiceCIDRs.Set(s) || changed
		}
	}
	if changed {
		for _, t := range c.tables {
			t.desired.SetServiceCIDRs(c.state.ServiceCIDRs.Of(t.desired.Model()))
		}
	}
	c.tellNode(in)
	if in.node != nil {
		if in.node.Zone != c.zone() {
			c.state.MarkAll()
		}
		c.node = in.node
		c.setLocalPods()
		c.setNodeIPs()
	}
}

// zone is this node's zone, as far as it is known.
func (c *Controller) zone() string {
	if c.node == nil {
		return ""
	}
	return c.node.Zone
}

// setNodeIPs tells the tables which addresses are this node's, and on which of
// them node ports are served.
func (c *Controller) setNodeIPs() {
	var node model.Node
	if c.node != nil {
		node = *c.node
	} else if c.config.NodeIPs != nil {
		for _, a := range c.config.NodeIPs() {
			node.Addrs[model.FamilyOf(a)] = a
		}
	}
	if a := c.config.BindAddress; a.IsValid() && !a.IsUnspecified() {
		node.Addrs[model.FamilyOf(a)] = a
	}
	for _, t := range c.tables {
		if t.desired.SetNodeAddr(node.Addrs[t.desired.Model()]) {
			c.state.MarkAll()
		}
	}
	var local []netip.Addr
	if len(c.config.NodePorts.CIDRs) > 0 {
		var err error
		if local, err = c.config.LocalAddrs(); err != nil {
			c.log.Error("cannot list this host's addresses, node ports stay where they were", "err", err)
			return
		}
	}
	for _, t := range c.tables {
		addrs := c.config.NodePorts.Addrs(&node, local)
		if c.config.NodePorts.All(t.schema.Family) {
			addrs = nil // the rules ask the kernel
		}
		t.desired.SetNodeIPs(addrs)
		c.tellAddrs(t)
	}
}

// commitDirty commits what changed since the last pass.
func (c *Controller) commitDirty(ctx context.Context, done *Commit) error {
	dirty := c.state.TakeDirty()
	done.Services += len(dirty)
	var all []nft.Change
	for _, t := range c.tables {
		for _, e := range dirty {
			c.compile(t.desired, e)
		}
		delta, conflicts := t.desired.TakeDelta()
		c.reportConflicts(conflicts)
		change := t.adapt(t.desired.Features())
		delta.Gone = change.Delta.Gone
		change.Delta = delta
		switch {
		case change.Empty():
		case t.schema.Sizes.Hold(t.desired.Counts()):
			t.sync.wrote = true
			all = append(all, change)
		default:
			t.sync.wrote = true
			used, _ := t.desired.Settle()
			if err := c.grow(ctx, t, used, done); err != nil {
				return err
			}
		}
	}
	if err := c.apply(ctx, done, all...); err != nil {
		return err
	}
	return c.commitLate(ctx, done)
}

// commitLate commits what has to wait for the other changes.
func (c *Controller) commitLate(ctx context.Context, done *Commit) error {
	var all []nft.Change
	for _, t := range c.tables {
		if late := t.desired.TakeLate(); !late.Empty() {
			change := t.adapt(t.desired.Features())
			late.Gone = change.Delta.Gone
			change.Delta = late
			all = append(all, change)
		}
	}
	return c.apply(ctx, done, all...)
}

// compile brings one Service into a table.
func (c *Controller) compile(t *compile.Table, e *model.Entry) {
	c.noteService(e)
	defer c.touch(t, e.Name)()
	if e.Service == nil {
		t.Delete(e.Name)
		return
	}
	t.Set(e.Service, func(p *model.ServicePort) model.Selection {
		c.endpoints = e.Endpoints(c.endpoints[:0], p, t.Model())
		return model.Select(c.endpoints, c.zone())
	})
}

func (c *Controller) apply(ctx context.Context, done *Commit, all ...nft.Change) error {
	if len(all) == 0 {
		return nil
	}
	if err := c.kernel.Apply(ctx, all...); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	done.Batches++
	for _, change := range all {
		done.Added += len(change.Delta.Add)
		done.Deleted += len(change.Delta.Delete)
	}
	return nil
}

func (c *Controller) report(start time.Time, done Commit) {
	done.Took = time.Since(start)
	c.note(done)
	if done.Batches > 0 {
		c.changed = time.Now()
		c.log.Debug("committed", "services", done.Services, "added", done.Added, "deleted", done.Deleted,
			"batches", done.Batches, "duration", done.Took)
	}
	if c.config.Committed != nil {
		c.config.Committed(done)
	}
}

func (c *Controller) reportConflicts(conflicts []compile.Conflict) {
	for _, conflict := range conflicts {
		c.log.Warn("two Services claim the same frontend, the other one has it", "frontend", conflict.Frontend.String(),
			"service", conflict.Loser, "winner", conflict.Winner, "as", conflict.Kind.String())
		c.warnConflict(conflict)
	}
}
