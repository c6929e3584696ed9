// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Others returns a number that is another one whenever somebody else has written to
// nf_tables in this namespace, to whatever table: its generation less our own
// transactions. To ask costs some microseconds.
//
// A transaction of ours that changes nothing makes no generation, so that the number
// may also be another one without a reason.
func (c *Conn) Others(ctx context.Context) (uint32, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	generation, err := c.generation(nft.IPv4) // it is that of all families
	if err != nil {
		return 0, fmt.Errorf("read the generation of nftables: %w", err)
	}
	return generation - c.commits, nil
}

// decodeGeneration reads NFT_MSG_NEWGEN: the number of a transaction, and whose it was.
func decodeGeneration(attrs []byte) (uint32, nft.Process) {
	var generation uint32
	var p nft.Process
	for typ, v := range wire.Attrs(attrs) {
		switch typ {
		case unix.NFTA_GEN_ID:
			generation = wire.U32(v)
		case unix.NFTA_GEN_PROC_PID:
			p.PID = wire.U32(v)
		case unix.NFTA_GEN_PROC_NAME:
			p.Name = wire.String(v)
		}
	}
	return generation, p
}
