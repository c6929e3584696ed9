// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Description is the constant part of a table as the kernel has it.
type Description struct {
	// Schema is that by which its rules were made, as they tell themselves.
	Schema *nft.Schema
	// Fault says in what the table is none of this schema; nil if it is.
	Fault error
}

// Describe reads how a family's table was made, whatever the configuration: its sets,
// chains and rules, not what they hold. It returns ErrMissing if there is no table,
// ErrForeign if it is not ours, and ErrSchema if this version does not understand it.
func (c *Conn) Describe(ctx context.Context, f nft.Family) (Description, error) {
	if err := ctx.Err(); err != nil {
		return Description{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	version, dormant, err := c.readTable(f)
	if err != nil {
		return Description{}, err
	}
	if version != nft.Version {
		return Description{}, fmt.Errorf("%w: it has schema version %d instead of %d", nft.ErrSchema, version, nft.Version)
	}
	found, err := c.inventory(f)
	if err != nil {
		return Description{}, err
	}
	features := found.features()
	options, err := nft.InferOptions(f, features, found.raw)
	if err != nil {
		return Description{}, err
	}
	options.Counters = found.sets[nft.Services.String()].counted
	d := Description{Schema: nft.NewSchema(f, options).With(features)}
	if dormant {
		d.Fault = fmt.Errorf("%w: it is dormant, so that it does nothing", nft.ErrSchema)
		return d, nil
	}
	_, d.Fault = found.compare(d.Schema)
	return d, nil
}

// rawRule is a rule's expressions.
func rawRule(body []byte) (r nft.RawRule) {
	for _, e := range wire.Attrs(wire.First(body, unix.NFTA_RULE_EXPRESSIONS)) {
		r = append(r, nft.RawExpr{Name: wire.String(wire.First(e, unix.NFTA_EXPR_NAME)), Data: wire.First(e, unix.NFTA_EXPR_DATA)})
	}
	return r
}
