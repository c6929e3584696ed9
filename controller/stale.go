// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// frontends is a set of frontends of one family.
type frontends map[compile.Frontend]struct{}

// touch notes the UDP frontends of a Service that is about to be compiled, and when
// what it returns is called, those that it then has: what becomes of their flows is
// looked at after the commit, and endpoints that come are allowed before it. That
// is work in proportion to the Service.
func (c *Controller) touch(t *compile.Table, service types.NamespacedName) (compiled func()) {
	if c.config.Cleaner == nil {
		return func() {}
	}
	before := slices.Collect(t.Claims(service, nft.UDP))
	return func() {
		all := slices.AppendSeq(before, t.Claims(service, nft.UDP))
		if len(all) == 0 {
			return
		}
		serving := c.serving(t)
		for _, f := range all {
			c.touchFrontend(t.Family(), f)
			c.config.Cleaner.Allow(t.Family(), f, func() Endpoints { return serving(f) })
		}
	}
}

// touchAdopted notes the UDP frontends of a table that is being adopted: their
// Services may have gone while nobody looked.
func (c *Controller) touchAdopted(t *compile.Table, have nft.Contents) {
	if c.config.Cleaner == nil {
		return
	}
	for set, elements := range have.Elements {
		if !nft.Set(set).Verdict() {
			continue
		}
		for key := range elements {
			if key.Proto == nft.UDP {
				c.touchFrontend(t.Family(), compile.Frontend{Addr: key.Addr, Proto: key.Proto, Port: key.Port})
			}
		}
	}
}

func (c *Controller) touchFrontend(family nft.Family, f compile.Frontend) {
	if c.touched == nil {
		c.touched = make(map[nft.Family]frontends)
	}
	if c.touched[family] == nil {
		c.touched[family] = make(frontends)
	}
	c.touched[family][f] = struct{}{}
}

// checkFlows has the flows looked at that what was committed may have left stale.
func (c *Controller) checkFlows() {
	if c.config.Cleaner == nil {
		return
	}
	for _, t := range c.tables {
		family := t.schema.Family
		if !c.config.NodePorts.All(family) {
			c.config.Cleaner.SetNodeIPs(family, t.desired.NodeIPs())
		}
		serving, check := c.serving(t.desired), make(map[compile.Frontend]Endpoints)
		for f := range c.touched[family] {
			check[f] = serving(f)
		}
		c.config.Cleaner.Check(family, check)
	}
	c.touched = nil
}

// serving returns what finds the endpoints that flows to a frontend may have: those
// of the Service that holds it.
func (c *Controller) serving(t *compile.Table) func(compile.Frontend) Endpoints {
	type port struct {
		service types.NamespacedName
		name    string
	}
	found := make(map[port]Endpoints) // a Service port's frontends share theirs
	return func(f compile.Frontend) Endpoints {
		service, name, ok := t.Holder(f)
		if !ok {
			return nil
		}
		p := port{service, name}
		if _, ok := found[p]; !ok {
			found[p] = c.state.Serving(service, name, model.Protocol(f.Proto), t.Model())
		}
		return found[p]
	}
}
