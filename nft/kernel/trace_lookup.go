// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/trace"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// BaseChain is what a base chain says of itself.
type BaseChain struct {
	Hook     string // prerouting, input, forward, output, postrouting or ingress
	Type     string // filter, nat or route
	Priority int32
}

// hookNames are the hooks of IP by their numbers (linux/netfilter.h).
var hookNames = [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}

// BaseChain looks a base chain up in any table. ok is false if there is none of
// that name.
func (c *Conn) BaseChain(t trace.Table, name string) (found BaseChain, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	c.batch.clear(t.Name)
	c.batch.message(unix.NFT_MSG_GETCHAIN, t.Family, 0)
	c.batch.str(unix.NFTA_CHAIN_NAME, name)
	err = c.ask(func(body []byte) error {
		hook := wire.First(body, unix.NFTA_CHAIN_HOOK)
		if number := wire.U32(wire.First(hook, unix.NFTA_HOOK_HOOKNUM)); hook != nil && int(number) < len(hookNames) {
			found, ok = BaseChain{
				Hook:     hookNames[number],
				Type:     wire.String(wire.First(body, unix.NFTA_CHAIN_TYPE)),
				Priority: int32(wire.U32(wire.First(hook, unix.NFTA_HOOK_PRIORITY))),
			}, true
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return BaseChain{}, false, nil
	}
	if err != nil {
		return BaseChain{}, false, fmt.Errorf("read chain %s %s: %w", t, name, err)
	}
	return found, ok, nil
}

// RuleInfo is what can be told of a rule of anybody's.
type RuleInfo struct {
	Comment string
	// Rejects reports whether it refuses packets, and does not only drop them.
	Rejects bool
}

// Rule looks a rule up in any table by its handle.
func (c *Conn) Rule(t trace.Table, chain string, handle uint64) (found RuleInfo, ok bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	c.batch.clear(t.Name)
	c.batch.message(unix.NFT_MSG_GETRULE, t.Family, 0)
	c.batch.str(unix.NFTA_RULE_CHAIN, chain)
	c.batch.u64(unix.NFTA_RULE_HANDLE, handle)
	err = c.ask(func(body []byte) error {
		ok = true
		found.Comment = nft.DecodeComment(wire.First(body, unix.NFTA_RULE_USERDATA))
		for _, e := range wire.Attrs(wire.First(body, unix.NFTA_RULE_EXPRESSIONS)) {
			found.add(e)
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return RuleInfo{}, false, nil
	}
	if err != nil {
		return RuleInfo{}, false, fmt.Errorf("read rule %s %s handle %d: %w", t, chain, handle, err)
	}
	return found, ok, nil
}

// add takes an expression of the rule. Rules that iptables made have their comment
// in a match and refuse by a target (nft_compat.c, xt_comment.h).
func (r *RuleInfo) add(e []byte) {
	data := wire.First(e, unix.NFTA_EXPR_DATA)
	switch wire.String(wire.First(e, unix.NFTA_EXPR_NAME)) {
	case "reject":
		r.Rejects = true
	case "target":
		r.Rejects = r.Rejects || wire.String(wire.First(data, unix.NFTA_TARGET_NAME)) == "REJECT"
	case "match":
		if wire.String(wire.First(data, unix.NFTA_MATCH_NAME)) == "comment" && r.Comment == "" {
			r.Comment = wire.String(wire.First(data, unix.NFTA_MATCH_INFO))
		}
	}
}

// Frontend reads an element of a map of frontends.
func (c *Conn) Frontend(f nft.Family, set nft.Set, key nft.Key) (found nft.Element, ok bool, err error) {
	err = c.Find(context.Background(), f, []nft.Element{{Set: set, Key: key}}, func(e nft.Element, _ uint64) { found, ok = e, true })
	return found, ok, err
}

// Slots reads the endpoints of a frontend, in the order of their slots.
func (c *Conn) Slots(f nft.Family, frontend nft.Element) ([]nft.Element, error) {
	to := frontend.Value.Verdict
	if to.Returns() {
		fallback, _, err := c.Frontend(f, frontend.Set.FallbackOf(), frontend.Key)
		if err != nil {
			return nil, err
		}
		to = fallback.Value.Verdict
	}
	set, ok := frontend.Set.EndpointsOf()
	if !ok || to.N == 0 {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	var all []nft.Element
	err := c.readSlots(f, set, []frontendSlots{{frontend.Key, to.N}}, func(some []nft.Element) { all = append(all, some...) })
	if err != nil {
		return nil, fmt.Errorf("read endpoints in %s %s: %w", f, set, err)
	}
	return all, nil
}
