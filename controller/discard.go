// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"

	"github.com/kube-nft/kube-nft/nft"
)

// Discard is a Dataplane that takes no time and keeps nothing: what is measured with
// it is user space.
type Discard struct{}

// Read returns nft.ErrMissing.
func (Discard) Read(context.Context, *nft.Schema) (nft.Contents, error) {
	return nft.Contents{}, nft.ErrMissing
}

// Apply does nothing.
func (Discard) Apply(context.Context, ...nft.Change) error { return nil }

// Reset does nothing.
func (Discard) Reset(context.Context, nft.Table) error { return nil }

// Look finds nothing.
func (Discard) Look(context.Context, *nft.Schema, []nft.Element, []nft.Set) (nft.Contents, error) {
	return nft.Contents{}, nil
}

// Inspect returns nft.ErrMissing.
func (Discard) Inspect(context.Context, *nft.Schema) (nft.Contents, nft.Counts, error) {
	return nft.Contents{}, nft.Counts{}, nft.ErrMissing
}

// Others says that nobody else writes.
func (Discard) Others(context.Context) (uint32, error) { return 0, nil }

// Watch reports nothing until ctx ends.
func (Discard) Watch(ctx context.Context, listening func(), _ func(nft.Foreign)) error {
	listening()
	<-ctx.Done()
	return nil
}
