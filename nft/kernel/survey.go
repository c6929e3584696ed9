// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// Survey is a table as somebody finds it who does not know how it was configured.
type Survey struct {
	// Schema has the options that the table's rules tell of, and its features.
	Schema *nft.Schema
	// Contents are without endpoints until SurveyEndpoints reads some.
	Contents nft.Contents
	// Counts is how many elements each set holds, -1 where the kernel does not say.
	Counts nft.Counts
	// Clients is how many clients each Service port remembers, as in AffinityClients;
	// nil where the kernel does not say.
	Clients map[nft.Port]int
	// Altered says how the constant part differs from what this version makes with
	// these options; nil if it does not.
	Altered error
	// Whole is false if something was committed while the table was read, so that
	// parts of it may be older than others, or lack an element.
	Whole bool

	generation uint32
}

// Survey reads what a family's table holds but for endpoints, whatever its
// configuration is, and hands each frontend to each as Connections does. It returns
// ErrMissing if there is none, ErrForeign if it is not ours, and ErrSchema if it is
// of another version. A constant part that somebody changed is no error: it is told,
// and the elements are read as far as they can be.
//
// It takes none of the locks that transactions take (nf_tables_api.c: all requests
// here are callbacks of type NFNL_CB_RCU): a connection of its own keeps out of
// their way.
func (c *Conn) Survey(ctx context.Context, f nft.Family, each func(table uint64, frontend nft.Element, packets uint64)) (*Survey, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	version, dormant, err := c.readTable(f)
	switch {
	case err != nil:
		return nil, err
	case version != nft.Version:
		return nil, fmt.Errorf("table %s %s: %w: it has schema version %d, and this kube-nft knows version %d: use the one that runs here, or restart it",
			f, nft.TableName, nft.ErrSchema, version, nft.Version)
	}
	before, err := c.generation(f)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", f, nft.TableName, err)
	}
	inventory, err := c.inventory(f)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", f, nft.TableName, err)
	}
	found := inventory.found(f)
	if dormant {
		found.Altered = fmt.Errorf("%w: it is dormant, so that packets pass it by", nft.ErrSchema)
	}
	if err := c.readHeads(ctx, found, inventory, each); err != nil {
		return nil, err
	}
	found.generation, err = c.generation(f)
	found.Whole = found.generation == before
	return found, err
}

// found is what an inventory tells of a table.
func (v *inventory) found(f nft.Family) *Survey {
	options, err := nft.InferOptions(f, v.features(), v.raw)
	options.Counters = v.sets[nft.Services.String()].counted
	found := &Survey{Schema: nft.NewSchema(f, options).With(v.features())}
	if found.Contents, found.Altered = v.compare(found.Schema); err != nil {
		found.Altered = err
	}
	for _, set := range nft.Sets {
		if d, ok := v.sets[set.String()]; ok {
			found.Counts[set] = d.count
		}
	}
	found.Clients = make(map[nft.Port]int)
	for name, d := range v.sets {
		if port, _, ok := nft.ParseAffinityMap(name); ok && found.Clients != nil {
			if found.Clients[port] = max(found.Clients[port], d.count); d.count < 0 {
				found.Clients = nil
			}
		}
	}
	return found
}

// readHeads reads all sets but those of endpoints.
func (c *Conn) readHeads(ctx context.Context, found *Survey, v *inventory, each func(uint64, nft.Element, uint64)) error {
	f := found.Schema.Family
	table, err := c.tableHandle(f)
	if err != nil {
		return fmt.Errorf("read table %s %s: %w", f, nft.TableName, err)
	}
	for _, set := range found.Schema.Sets() {
		if _, there := v.sets[set.String()]; !there || set.HoldsEndpoints() {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case set.Verdict():
			err = c.dumpElements(f, set, func(e nft.Element, n uint64) {
				found.Contents.Put(e)
				if e.Set.Counted() || set == nft.NoEndpoints || set == nft.NoEndpointsNodePorts {
					each(table, e, n)
				}
			})
		default:
			err = c.readElements(f, set, &found.Contents)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("read %s %s: %w", f, set, err)
		}
	}
	return nil
}

// SurveyEndpoints reads the endpoints of those frontends that are wanted into the contents. It
// asks for them by key, in time that depends on their number alone.
func (c *Conn) SurveyEndpoints(ctx context.Context, found *Survey, wanted func(frontend nft.Element) bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	f := found.Schema.Family
	for _, frontends := range found.Schema.Sets() {
		endpoints, ok := frontends.EndpointsOf()
		if !ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var all []frontendSlots
		n := 0
		for key, v := range found.Contents.Elements[frontends] {
			if !wanted(nft.Element{Set: frontends, Key: key, Value: v}) {
				continue
			}
			if v.Verdict.Returns() {
				v = found.Contents.Elements[frontends.FallbackOf()][key]
			}
			all = append(all, frontendSlots{key, v.Verdict.N})
			n += int(v.Verdict.N)
		}
		if found.Contents.Elements[endpoints] == nil {
			found.Contents.Elements[endpoints] = make(map[nft.Key]nft.Value, min(n, max(found.Counts[endpoints], 0)))
		}
		if err := c.getSlots(f, endpoints, all, &found.Contents); err != nil {
			return fmt.Errorf("read %s %s: %w", f, endpoints, err)
		}
	}
	after, err := c.generation(f)
	found.Whole = found.Whole && after == found.generation
	return err
}
