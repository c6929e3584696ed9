// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
)

// ErrNotSynced says that a source ended before it had delivered everything.
var ErrNotSynced = errors.New("the source ended before it had delivered everything")

// Compile returns the tables that a Controller would keep for what a source says
// now; it needs no kernel.
func Compile(ctx context.Context, config Config, src source.Source) ([]nft.Table, error) {
	_, all, err := compileAll(ctx, config, src)
	return all, err
}

// Snapshot asks a question about what a source says now, as Ask does; it needs no kernel.
func Snapshot(ctx context.Context, config Config, src source.Source, question func(Facts)) error {
	c, _, err := compileAll(ctx, config, src)
	if err == nil {
		question(Facts{c})
	}
	return err
}

func compileAll(ctx context.Context, config Config, src source.Source) (*Controller, []nft.Table, error) {
	c := New(config, nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- src.Run(ctx, c.queue) }()
	for synced := false; !synced; {
		select {
		case <-c.queue.wake:
		case err := <-done:
			if err != nil {
				return nil, nil, err
			}
			done = nil
			c.queue.signal()
		}
		var pending changes
		pending, synced = c.queue.take()
		c.merge(pending)
		if !synced && done == nil {
			return nil, nil, errors.Join(ErrNotSynced, ctx.Err())
		}
	}
	c.setNodeIPs()
	var all []nft.Table
	dirty := c.state.TakeDirty()
	for _, t := range c.tables {
		for _, e := range dirty {
			c.compile(t.desired, e)
		}
		chains, conflicts := t.desired.Settle()
		c.reportConflicts(conflicts)
		whole := t.whole(chains)
		whole.Elements = t.desired.Sorted()
		all = append(all, whole)
	}
	return c, all, nil
}
