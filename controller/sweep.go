// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// Between two sweeps a Cleaner rests for settles, and for as long as the last one
// took: a busy cluster must not cost more than half a CPU.
const settles = 200 * time.Millisecond

// maxPorts is up to how many destination ports are walked one by one. The kernel
// passes over entries of other ports in a sixth of the time that it takes to list
// them.
const maxPorts = 4

// Run deletes stale flows until ctx ends. What comes in while it works is done in
// the next sweep, all together.
func (c *Cleaner) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		delay := settles
		for more := true; more; {
			start := time.Now()
			err := c.sweep(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				delay = min(2*delay, lastRetry)
				c.log.Warn("stale UDP flows could not be deleted, will retry", "err", err, "after", delay)
			default:
				delay = max(settles, time.Since(start))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(delay):
			}
			more = c.due()
		}
	}
}

// due reports whether there are walks to be made.
func (c *Cleaner) due() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.families {
		for _, at := range k.frontends {
			if at.walks > 0 {
				return true
			}
		}
	}
	return false
}

// sweep walks the entries of each family that has frontends to check.
func (c *Cleaner) sweep(ctx context.Context) error {
	c.mu.Lock()
	c.round++
	c.mu.Unlock()
	for _, family := range nft.Families {
		ports, err := c.begin(family)
		if err != nil {
			return err
		}
		if len(ports) == 0 {
			continue
		}
		w := c.walk(ctx, family, ports)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.log.Debug("looked for stale UDP flows", "family", family.String(), "seen", w.Seen, "deleted", w.Deleted, "duration", w.Took, "err", w.Err)
		if c.Walked != nil {
			c.Walked(w)
		}
		if w.Err != nil {
			return w.Err
		}
		c.end(family)
	}
	return nil
}

// begin returns the destination ports to look at; 0 stands for all.
func (c *Cleaner) begin(family nft.Family) ([]uint16, error) {
	c.mu.Lock()
	k := c.family(family)
	var ports []uint16
	seen := make(map[uint16]bool)
	for f, at := range k.frontends {
		if at.walks > 0 && !seen[f.Port] {
			seen[f.Port] = true
			ports = append(ports, f.Port)
		}
	}
	listed := k.listed
	c.mu.Unlock()
	if len(ports) > maxPorts {
		ports = []uint16{0}
	}
	if listed || len(ports) == 0 {
		return ports, nil
	}
	local, err := c.localAddrs()
	if err != nil {
		return nil, fmt.Errorf("find the addresses that node ports are served on: %w", err)
	}
	c.setLocal(family, local)
	return ports, nil
}

// setLocal notes the local addresses, unless SetNodeIPs has been called meanwhile.
func (c *Cleaner) setLocal(family nft.Family, local []netip.Addr) {
	addrs := make(map[netip.Addr]struct{})
	for _, a := range local {
		if nft.FamilyOf(a) == family && !a.IsLoopback() {
			addrs[a] = struct{}{}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.families[family]; !k.listed {
		k.nodeIPs = addrs
	}
}

// walk looks at a family's entries.
func (c *Cleaner) walk(ctx context.Context, family nft.Family, ports []uint16) Walk {
	w, start := Walk{Family: family}, time.Now()
	for _, port := range ports {
		seen, deleted, err := c.conntrack.Purge(ctx, family, nft.UDP, port, func(dst, server netip.AddrPort) bool {
			return c.stale(family, dst, server)
		})
		w.Seen += seen
		w.Deleted += deleted
		if w.Err = err; err != nil {
			break
		}
	}
	w.Took = time.Since(start)
	return w
}

// end counts a walk for those frontends that were there when it began, and forgets
// those without endpoints that need no more of them.
func (c *Cleaner) end(family nft.Family) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.families[family]
	for f, at := range k.frontends {
		if at.walks > 0 && at.since < c.round {
			at.walks--
		}
		if at.walks == 0 && len(at.allowed) == 0 {
			delete(k.frontends, f)
		}
	}
}
