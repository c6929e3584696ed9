// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"

	"github.com/kube-nft/kube-nft/nft"
)

// Rules are what constant rules and the node's own elements depend on. They may change
// while a Controller runs.
type Rules struct {
	// Options of the table of each family; a family without options has no table. The
	// families do not change.
	Options map[nft.Family]nft.Options
	// DetectLocal says which traffic is that of pods on this node.
	DetectLocal DetectLocal
	// NodePorts says on which of the node's addresses node ports are served.
	NodePorts NodePorts
	// BindAddress replaces the node's address of its family (kube-proxy's
	// bindAddress); invalid is none.
	BindAddress netip.Addr
}

// setRules brings in other rules. A table whose constant rules are other ones is made
// anew, in one transaction of the next pass; all else is a change of elements.
func (c *Controller) setRules(r Rules) {
	c.config.Rules = r
	c.queue.noteQueued(bothFamilies...)
	for _, t := range c.tables {
		if o, ok := r.Options[t.schema.Family]; ok {
			o.LocalPods = c.localPods(t)
			t.setOptions(o)
		}
	}
	c.setNodeIPs()
}

// setOptions has the table made anew if its rules are to be other ones.
func (t *table) setOptions(o nft.Options) {
	if o == t.schema.Options {
		return
	}
	next := nft.NewSchema(t.schema.Family, o).With(t.schema.Features)
	next.Sizes = t.schema.Sizes
	t.schema, t.resync, t.changed = next, true, t.adopted
}
