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

// Watch reports nothing until ctx ends.
func (Discard) Watch(ctx context.Context, _ func(nft.Family)) error { <-ctx.Done(); return nil }
