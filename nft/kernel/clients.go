// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// AffinityClients returns how many clients the kernel remembers for each Service
// port with session affinity; of a port with two maps, what the fuller one holds.
// Those that have expired may count for as long as the kernel has not collected
// them. It lists the table's sets, not what is in them, and takes none of the
// locks that transactions take (nf_tables_api.c, nf_tables_dump_sets): a
// connection of its own keeps out of their way. Without a table there are none.
// The error is nft.ErrUncounted where the kernel does not count.
func (c *Conn) AffinityClients(ctx context.Context, f nft.Family) (map[nft.Port]int, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	clients := make(map[nft.Port]int)
	c.begin(unix.NFT_MSG_GETSET, f, unix.NLM_F_DUMP)
	err := c.ask(func(body []byte) error {
		port, _, ok := nft.ParseAffinityMap(cstring(first(body, unix.NFTA_SET_NAME)))
		if !ok {
			return nil
		}
		count := first(body, nftaSetCount)
		if count == nil {
			return nft.ErrUncounted
		}
		clients[port] = max(clients[port], int(u32(count)))
		return nil
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("count affinity clients of %s %s: %w", f, nft.TableName, err)
	}
	return clients, nil
}
