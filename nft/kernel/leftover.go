// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// traceTable is that of `kube-nft trace`, which is there while somebody looks.
const traceTable = "kube-nft-trace"

// DeleteTrace deletes the tables of `kube-nft trace` that one left whose end was sudden,
// and returns how they were called. One that a process owns (NFT_TABLE_F_OWNER) goes
// with that process, and stays.
func (c *Conn) DeleteTrace(ctx context.Context) (deleted []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for family, name := range map[nft.Family]string{
		unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
	} {
		if err := ctx.Err(); err != nil {
			return deleted, err
		}
		c.drain()
		c.batch.reset(traceTable)
		c.batch.deleteTable(family)
		switch err := c.commit(); {
		case err == nil:
			deleted = append(deleted, name+" "+traceTable)
		case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EPERM):
			return deleted, fmt.Errorf("delete table %s %s: %w", name, traceTable, err)
		}
	}
	return deleted, nil
}
