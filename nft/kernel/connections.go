// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// frontendSets are the maps in which a frontend of a Service port has its comment:
// those that count its connections, and those of who is not served, which count
// nothing.
var frontendSets = [...]nft.Set{
	nft.Services, nft.NodePorts, nft.LocalServices, nft.LocalNodePorts, nft.NoEndpoints, nft.NoEndpointsNodePorts,
}

// Connections hands each frontend of a family's table to each, with the packets
// that it has counted: the first ones of connections. One that changes meanwhile
// may come twice, and one may be left out if others are deleted meanwhile: then
// whole is false. A table that was made anew has another number, and its counters
// began at zero. Without a table there are no frontends.
//
// It dumps maps of frontends, which takes none of the locks that transactions take
// (nf_tables_api.c, nf_tables_dump_set): a connection of its own keeps out of their
// way.
func (c *Conn) Connections(ctx context.Context, f nft.Family, each func(table uint64, frontend nft.Element, packets uint64)) (whole bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	// The number comes before what is in the table: what is read may be younger, but
	// never older.
	table, err := c.tableHandle(f)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read table %s %s: %w", f, nft.TableName, err)
	}
	whole = true
	for _, set := range frontendSets {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		quiet, err := c.dumpFrontends(f, set, func(e nft.Element, n uint64) { each(table, e, n) })
		if err != nil {
			return false, fmt.Errorf("read connections of %s %s: %w", f, set, err)
		}
		whole = whole && quiet
	}
	return whole, nil
}

// dumpFrontends dumps a map, and again if anything changed meanwhile in the
// namespace's nf_tables, which in a busy cluster happens the second time too. The
// kernel does not say so of elements, as it does of sets and chains
// (NLM_F_DUMP_INTR; nf_tables_dump_set never checks), but it numbers commits.
func (c *Conn) dumpFrontends(f nft.Family, set nft.Set, each func(nft.Element, uint64)) (whole bool, err error) {
	before, err := c.generation(f)
	for try := 0; err == nil && !whole && try < 2; try++ {
		var after uint32
		if err = c.dumpElements(f, set, each); err == nil {
			after, err = c.generation(f)
			whole, before = after == before, after
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return true, nil // no Service needs such a map
	}
	return whole, err
}

func (c *Conn) dumpElements(f nft.Family, set nft.Set, each func(nft.Element, uint64)) error {
	c.begin(unix.NFT_MSG_GETSETELEM, f, unix.NLM_F_DUMP)
	c.batch.str(unix.NFTA_SET_ELEM_LIST_SET, set.String())
	return c.ask(func(body []byte) error {
		for _, v := range wire.Attrs(wire.First(body, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			e, n, err := decodeElement(f, set, v)
			if err != nil {
				return fmt.Errorf("%w: %w", nft.ErrSchema, err)
			}
			each(e, n.packets)
		}
		return nil
	})
}

// tableHandle is the number of the table, which no other one in the namespace has
// had.
func (c *Conn) tableHandle(f nft.Family) (handle uint64, err error) {
	c.begin(unix.NFT_MSG_GETTABLE, f, 0)
	err = c.ask(func(body []byte) error {
		handle = wire.U64(wire.First(body, nftaTableHandle))
		return nil
	})
	return handle, err
}

// generation is the number of the namespace's last commit.
func (c *Conn) generation(f nft.Family) (n uint32, err error) {
	c.begin(unix.NFT_MSG_GETGEN, f, 0)
	err = c.ask(func(body []byte) error {
		n = wire.U32(wire.First(body, unix.NFTA_GEN_ID))
		return nil
	})
	return n, err
}
