// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// kernelTable is one family's table as the kernel has it; an explain.Table. The first
// error stays, and what could not be read looks as if it were not there.
type kernelTable struct {
	ctx    context.Context
	conn   *kernel.Conn
	family nft.Family
	schema *nft.Schema
	// fault says what is not as this version makes tables; nil if nothing is.
	fault error
	err   error
}

// openTable reads how a family's table is made.
func openTable(ctx context.Context, conn *kernel.Conn, f nft.Family) (*kernelTable, error) {
	d, err := conn.Describe(ctx, f)
	if err != nil {
		return nil, err
	}
	return &kernelTable{ctx: ctx, conn: conn, family: f, schema: d.Schema, fault: d.Fault}, nil
}

func (t *kernelTable) note(err error) { t.err = errors.Join(t.err, err) }

// Schema implements explain.Table.
func (t *kernelTable) Schema() *nft.Schema { return t.schema }

// Get implements explain.Table.
func (t *kernelTable) Get(set nft.Set, k nft.Key) (found nft.Element, ok bool) {
	if set == nft.ServiceCIDRs { // a few ranges, which the kernel keeps as boundaries
		t.note(t.conn.List(t.ctx, t.family, set, func(e nft.Element, _ uint64) {
			if e.Key.Range.Prefix().Contains(k.Range.Prefix().Addr()) {
				found, ok = e, true
			}
		}))
		return found, ok
	}
	t.note(t.conn.Find(t.ctx, t.family, []nft.Element{{Set: set, Key: k}}, func(e nft.Element, _ uint64) { found, ok = e, true }))
	return found, ok
}

const (
	// maxSlots is more than any Service has, and bounds the memory for what a chain
	// draws from: anybody may have made it who can write to the table.
	maxSlots = 1 << 20
	// slotsAtOnce are looked up together. If none is there, those behind are not either.
	slotsAtOnce = 1000
)

// Slots implements explain.Table.
func (t *kernelTable) Slots(set nft.Set, frontend nft.Key, n uint32) []netip.AddrPort {
	slots := make([]netip.AddrPort, min(n, maxSlots))
	keys := make([]nft.Element, 0, slotsAtOnce)
	for from, some := 0, true; some && from < len(slots); from += len(keys) {
		keys, some = keys[:0], false
		for slot := from; slot < min(from+slotsAtOnce, len(slots)); slot++ {
			e := nft.Element{Set: set, Key: frontend}
			e.Key.Slot = uint32(slot)
			keys = append(keys, e)
		}
		t.note(t.conn.Find(t.ctx, t.family, keys, func(e nft.Element, _ uint64) {
			if int(e.Key.Slot) < len(slots) {
				slots[e.Key.Slot], some = e.Value.To, true
			}
		}))
	}
	return slots
}

// Client implements explain.Table.
func (t *kernelTable) Client(name string, client netip.Addr) (explain.Remembered, bool) {
	r, ok, err := t.conn.Remembers(t.ctx, t.family, name, client)
	t.note(err)
	return explain.Remembered{Endpoint: r.To, Timeout: r.Timeout, Left: r.Left}, ok
}

// Sources implements explain.Table. The ranges of one frontend cannot be asked for by
// themselves: all are listed.
func (t *kernelTable) Sources(frontend nft.Key) (all []netip.Prefix) {
	t.note(t.conn.List(t.ctx, t.family, nft.SourceRanges, func(e nft.Element, _ uint64) {
		of := e.Key
		of.Range = nft.Range{}
		if of == frontend {
			all = append(all, e.Key.Range.Prefix())
		}
	}))
	return all
}
