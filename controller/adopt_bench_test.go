// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
)

// remembered is a Dataplane without a kernel: what was written is read again.
type remembered struct {
	Discard
	contents nft.Contents
	written  int
}

// Read returns a copy, since its reader uses it up.
func (r *remembered) Read(context.Context, *nft.Schema) (nft.Contents, error) {
	if r.contents.Len() == 0 {
		return nft.Contents{}, nft.ErrMissing
	}
	return r.copy(), nil
}

func (r *remembered) copy() nft.Contents {
	c := r.contents
	for set, elements := range c.Elements {
		c.Elements[set] = maps.Clone(elements)
	}
	c.Chains = maps.Clone(c.Chains)
	return c
}

// Reset keeps an empty table's schema.
func (r *remembered) Reset(_ context.Context, t nft.Table) error {
	r.contents = nft.Contents{Features: t.Schema.Features, Sizes: t.Schema.Sizes}
	for _, chain := range t.Chains {
		r.contents.PutChain(chain)
	}
	return nil
}

// Apply puts in what is added; a start deletes nothing.
func (r *remembered) Apply(_ context.Context, all ...nft.Change) error {
	for _, change := range all {
		r.written += len(change.Delta.Add) + len(change.Delta.Delete)
		for _, e := range change.Delta.Add {
			r.contents.Put(e)
		}
		r.contents.Features = change.Schema.Features
	}
	return nil
}

// readAlready is what a restart finds, with the time that it takes to read left out.
type readAlready struct {
	Discard
	contents nft.Contents
}

func (r readAlready) Read(context.Context, *nft.Schema) (nft.Contents, error) { return r.contents, nil }

// Apply is not called: there is no difference.
func (readAlready) Apply(_ context.Context, all ...nft.Change) error {
	return fmt.Errorf("a restart writes %d changes", len(all))
}

// BenchmarkAdopt is a restart without a kernel: it compiles everything and compares it
// with a table that was read and holds the same. nft/kernel's BenchmarkRead is the
// reading.
func BenchmarkAdopt(b *testing.B) {
	for _, load := range loads {
		b.Run(fmt.Sprintf("%dx%d", load.Services, load.Endpoints), func(b *testing.B) {
			first := loaded(&load)
			kept := new(remembered)
			first.kernel = kept
			if err := first.pass(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				c := loaded(&load)
				c.kernel = readAlready{contents: kept.copy()}
				b.StartTimer()
				if err := c.pass(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
