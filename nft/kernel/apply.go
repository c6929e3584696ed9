// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// Apply commits changes in one transaction: packets see all of it or nothing. The
// tables must exist. On an error nothing was done, unless it is ErrUnknown.
//
// A frontend whose verdict changes keeps its counter: its value is read just
// before and goes into the new element; what is counted in between is lost. What
// the kernel remembers of the clients of endpoints that leave goes with them.
func (c *Conn) Apply(ctx context.Context, changes ...nft.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	counters := make([]counterOf, len(changes))
	for i, change := range changes {
		var err error
		if counters[i], err = c.replacedCounters(change.Schema, change.Delta); err != nil {
			return err
		}
	}
	if !slices.ContainsFunc(changes, touchesClients) {
		if err := c.batch.changes(changes, counters, nil); err != nil {
			return err
		}
		return c.commit()
	}
	err := c.retryExpired(func() error {
		edits := make([][]edit, len(changes))
		for i, change := range changes {
			var err error
			if edits[i], err = c.edits(change.Schema.Family, change.Delta); err != nil {
				return err
			}
		}
		if err := c.batch.changes(changes, counters, edits); err != nil {
			return err
		}
		return c.commit()
	})
	if err != nil {
		return err
	}
	return c.forgetLate(changes)
}

// touchesClients reports whether a change is about what the kernel remembers of
// clients.
func touchesClients(c nft.Change) bool { return len(c.Delta.Keep)+len(c.Delta.Affinities) > 0 }

// Prepared is a transaction that only needs to be sent: the floor that the time
// of everything before it is measured against.
type Prepared struct {
	conn  *Conn
	batch batch
}

// Prepare encodes changes without sending them; counters start from zero.
func (c *Conn) Prepare(changes ...nft.Change) (*Prepared, error) {
	p := &Prepared{conn: c}
	err := p.batch.changes(changes, make([]counterOf, len(changes)), nil)
	p.batch.commit()
	return p, err
}

// Commit sends the transaction and waits for the kernel's answer.
func (p *Prepared) Commit() error {
	p.conn.mu.Lock()
	defer p.conn.mu.Unlock()
	p.conn.batch, p.batch = p.batch, p.conn.batch
	defer func() { p.conn.batch, p.batch = p.batch, p.conn.batch }()
	if err := p.conn.send(); err != nil {
		return err
	}
	return p.conn.answers()
}

// changes builds a whole transaction but for its end.
func (b *batch) changes(changes []nft.Change, counters []counterOf, edits [][]edit) error {
	b.reset(nft.TableName)
	for i, change := range changes {
		if change.Was != nil {
			if err := b.migrate(change.Was, change.Schema); err != nil {
				return err
			}
		}
		if err := b.delta(change.Schema, change.Delta, counters[i]); err != nil {
			return err
		}
		if edits != nil {
			b.edit(change.Schema.Family, edits[i])
		}
		b.disown(change.Schema, change.Delta.Affinities)
		for _, chain := range change.Delta.Gone {
			b.deleteChain(change.Schema.Family, chain.String())
		}
		if change.Was != nil {
			b.retire(change.Was, change.Schema)
		}
	}
	return nil
}

// delta appends what is new in a table, and its changed elements. Nothing depends
// on their order but the kernel's own checks: a chain exists before an element
// leads to it, and a key is deleted before it is added again.
func (b *batch) delta(s *nft.Schema, d nft.Delta, counters counterOf) error {
	for _, chain := range d.Chains {
		if err := b.chain(s, s.Dynamic(chain)); err != nil {
			return err
		}
	}
	if err := b.own(s, d.Affinities); err != nil {
		return err
	}
	b.elements(unix.NFT_MSG_DELSETELEM, s.Family, d.Delete, nil)
	b.elements(unix.NFT_MSG_NEWSETELEM, s.Family, d.Add, counters)
	return nil
}

func (c *Conn) commit() error {
	if c.batch.size() == 0 {
		return nil
	}
	c.batch.commit()
	if err := c.send(); err != nil {
		return err
	}
	return c.answers()
}

// Reset makes a family's table anew, in one transaction: the table that was there
// serves packets until the new one does, and what the kernel remembered of clients
// passes on. A table of our name that we did not make is left alone, with
// nft.ErrForeign.
func (c *Conn) Reset(ctx context.Context, t nft.Table) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	s := t.Schema
	exists, err := c.ours(s.Family)
	if err != nil {
		return err
	}
	var clients []edit
	if exists {
		if clients, err = c.carried(t); err != nil {
			return err
		}
	}
	c.batch.reset(nft.TableName)
	if exists {
		c.batch.deleteTable(s.Family)
	}
	if err := c.batch.declare(s); err != nil {
		return err
	}
	d := nft.Delta{Chains: t.Chains, Add: slices.Collect(t.Elements)}
	for _, a := range t.Affinities {
		d.Affinities = append(d.Affinities, nft.AffinityChange{Is: a})
	}
	if err := c.batch.delta(s, d, nil); err != nil {
		return err
	}
	c.batch.edit(s.Family, clients)
	return c.commit()
}

// Delete deletes the family's table. It reports whether there was one.
func (c *Conn) Delete(ctx context.Context, f nft.Family) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	exists, err := c.ours(f)
	if err != nil || !exists {
		return false, err
	}
	c.batch.reset(nft.TableName)
	c.batch.deleteTable(f)
	return true, c.commit()
}

// ours reports whether the family has our table; ErrForeign if somebody else made it.
func (c *Conn) ours(f nft.Family) (bool, error) {
	_, _, err := c.readTable(f)
	if errors.Is(err, nft.ErrMissing) {
		return false, nil
	}
	return err == nil, err
}

// replacedCounters reads the counters of frontends that are deleted and added in
// the same transaction.
func (c *Conn) replacedCounters(s *nft.Schema, d nft.Delta) (counterOf, error) {
	replaced := replacedFrontends(s, d)
	if len(replaced) == 0 {
		return nil, nil
	}
	values := make(map[setKey]counter, len(replaced))
	q := c.inquire(s.Family, func(e nft.Element, n counter) { values[setKey{e.Set, e.Key}] = n })
	for i := range replaced {
		if err := q.ask(replaced[i : i+1]); err != nil {
			return nil, fmt.Errorf("read counters: %w", err)
		}
	}
	if err := q.send(); err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	return func(set nft.Set, k nft.Key) (counter, bool) {
		v, ok := values[setKey{set, k}]
		return v, ok
	}, nil
}

type setKey struct {
	set nft.Set
	key nft.Key
}

// replacedFrontends lists counted elements that a delta both deletes and adds.
func replacedFrontends(s *nft.Schema, d nft.Delta) []nft.Element {
	var deleted []nft.Element
	for _, e := range d.Delete {
		if s.Counted(e.Set) {
			deleted = append(deleted, e)
		}
	}
	if len(deleted) == 0 {
		return nil
	}
	added := make(map[setKey]struct{})
	for _, e := range d.Add {
		if s.Counted(e.Set) {
			added[setKey{e.Set, e.Key}] = struct{}{}
		}
	}
	return slices.DeleteFunc(deleted, func(e nft.Element) bool {
		_, ok := added[setKey{e.Set, e.Key}]
		return !ok
	})
}
