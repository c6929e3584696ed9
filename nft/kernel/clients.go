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
	counts, err := c.countEntries(f)
	if err != nil {
		return nil, fmt.Errorf("count affinity clients of %s %s: %w", f, nft.TableName, err)
	}
	clients := make(map[nft.Port]int)
	for name, n := range counts {
		if port, _, ok := nft.ParseAffinityMap(name); ok {
			clients[port] = max(clients[port], n)
		}
	}
	return clients, nil
}

// countEntries counts the elements of the maps from clients to endpoints, by name.
func (c *Conn) countEntries(f nft.Family) (map[string]int, error) {
	counts := make(map[string]int)
	c.begin(unix.NFT_MSG_GETSET, f, unix.NLM_F_DUMP)
	err := c.ask(func(body []byte) error {
		name := wire.String(wire.First(body, unix.NFTA_SET_NAME))
		if _, _, ok := nft.ParseAffinityMap(name); !ok {
			return nil
		}
		count := wire.First(body, nftaSetCount)
		if count == nil {
			return nft.ErrUncounted
		}
		counts[name] = int(wire.U32(count))
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return counts, err
}
