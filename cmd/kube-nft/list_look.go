// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// sight is what was seen of the tables of all families.
type sight struct {
	view  *view.View
	found []*kernel.Survey // of families that have a table
}

// whole reports whether nothing changed meanwhile.
func (s *sight) whole() bool {
	for _, f := range s.found {
		if !f.Whole {
			return false
		}
	}
	return true
}

// lookAgainWithin is for how long tables are read again in the hope that nothing changes
// meanwhile. In a busy cluster something always does, and large tables take longer.
const lookAgainWithin = 500 * time.Millisecond

// look reads all tables, and the endpoints of Service ports that are wanted. A
// family without a table is fine, all of them without are an error. What could be
// read is returned beside an error.
func look(ctx context.Context, conn *kernel.Conn, wanted func(view.Name) bool) (*sight, error) {
	for begin := time.Now(); ; {
		seen, err := lookOnce(ctx, conn, wanted)
		if err != nil || seen.whole() || time.Since(begin) > lookAgainWithin {
			return seen, err
		}
	}
}

func lookOnce(ctx context.Context, conn *kernel.Conn, wanted func(view.Name) bool) (*sight, error) {
	seen := &sight{}
	var tables []view.Table
	var errs []error
	missing := 0
	for _, f := range nft.Families {
		counters := make(view.Counters)
		found, err := conn.Survey(ctx, f, counters.Add)
		if err == nil {
			err = conn.SurveyEndpoints(ctx, found, func(e nft.Element) bool {
				name, ok := view.NameOf(e)
				return ok && wanted(name)
			})
		}
		switch {
		case errors.Is(err, nft.ErrMissing):
			missing++
		case errors.Is(err, fs.ErrPermission):
			return nil, errCannotRead
		case err != nil:
			errs = append(errs, err)
		default:
			seen.found = append(seen.found, found)
			tables = append(tables, view.Table{Schema: found.Schema, Contents: found.Contents, Counters: counters, Clients: found.Clients})
		}
	}
	if missing == len(nft.Families) {
		return nil, errNoTables
	}
	seen.view = view.Of(tables...)
	return seen, errors.Join(errs...)
}

// What is wrong if nothing can be seen, with its mend.
var (
	errNoTables = fmt.Errorf("%w in any family: kube-nft has not run on this host (kube-nft run), or somebody removed what it made; "+
		"in a container, its network namespace has to be the host's", nft.ErrMissing)
	errCannotRead = fmt.Errorf("nftables cannot be read: run as root, or give the container CAP_NET_ADMIN: %w", fs.ErrPermission)
)
