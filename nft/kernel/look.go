// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"fmt"

	"github.com/kube-nft/kube-nft/nft"
)

// Look reads of a table what it holds of some elements, whose keys alone count, and of
// some sets as a whole. It takes time in proportion to what is asked for, and holds up
// no commit of others. nft.ErrSchema says that an element is none that we write. A table
// or set that is not there holds nothing.
func (c *Conn) Look(ctx context.Context, s *nft.Schema, keys []nft.Element, sets []nft.Set) (nft.Contents, error) {
	var contents nft.Contents
	if err := ctx.Err(); err != nil {
		return contents, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	if err := c.lookup(s.Family, keys, &contents); err != nil {
		return nft.Contents{}, fmt.Errorf("look at %s %s: %w", s.Family, nft.TableName, err)
	}
	for _, set := range sets {
		if err := c.readElements(s.Family, set, &contents); err != nil {
			return nft.Contents{}, err
		}
	}
	return contents, nil
}

// lookup asks for elements by key, neighbours together: mostly they are all there. The
// kernel stops at the first one of a request that is not; those behind it are asked for
// one by one.
func (c *Conn) lookup(f nft.Family, keys []nft.Element, contents *nft.Contents) error {
	q := c.inquire(f, func(e nft.Element, _ counter) { contents.Put(e) })
	for begin := 0; begin < len(keys); {
		end := begin + 1
		for end < len(keys) && end-begin < maxNeighbours && keys[end].Set == keys[begin].Set {
			end++
		}
		if err := q.ask(keys[begin:end]); err != nil {
			return err
		}
		begin = end
	}
	if err := q.send(); err != nil {
		return err
	}
	for i, e := range keys {
		if _, ok := contents.Elements[e.Set][e.Key]; ok {
			continue
		}
		if err := q.ask(keys[i : i+1]); err != nil {
			return err
		}
	}
	return q.send()
}

// maxNeighbours bounds the elements of one request of a lookup: of as many, when one is
// missing, the rest is asked for twice.
const maxNeighbours = 16

// Inspect compares all in a table but its elements with a schema, as Read does and with
// its errors, and reads how many elements each set has: -1 where that is not known,
// because the kernel does not count or counts the ends of ranges.
func (c *Conn) Inspect(ctx context.Context, s *nft.Schema) (nft.Contents, nft.Counts, error) {
	var counts nft.Counts
	if err := ctx.Err(); err != nil {
		return nft.Contents{}, counts, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	found, contents, err := c.constant(s)
	if err != nil {
		return nft.Contents{}, counts, err
	}
	for _, set := range s.With(contents.Features).Sets() {
		if counts[set] = found.sets[set.String()].count; set.Ranged() {
			counts[set] = -1
		}
	}
	return contents, counts, nil
}
