// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// churn changes endpoints of a shape's Services: each change writes an EndpointSlice of
// which one endpoint has another address.
type churn struct {
	api      *site.API
	requests []shape.Request // in turn
}

const (
	churnSlices  = 1000 // that are changed, at most
	churnWriters = 48
)

func newChurn(api *site.API, s shape.Shape) (*churn, error) {
	c := &churn{api: api}
	for _, moved := range []bool{true, false} { // there and back
		n := 0
		for i := 0; i < s.Services && n < churnSlices; i++ {
			for j, slice := range s.Slices(i) {
				if n++; n > churnSlices {
					break
				}
				if moved {
					move(slice, s, i+j)
				}
				r, err := api.PutRequest(slice)
				if err != nil {
					return nil, err
				}
				c.requests = append(c.requests, r)
			}
		}
	}
	return c, nil
}

// move gives one endpoint of a slice an address that no other has.
func move(slice *discoveryv1.EndpointSlice, s shape.Shape, number int) {
	if len(slice.Endpoints) > 0 {
		slice.Endpoints[0].Addresses = []string{shape.Endpoint(s.Endpoints + number).String()}
	}
}

// run writes changes at a rate, in changes a second, for as long as ctx lasts, and
// returns how many it wrote. If the API server takes less, it writes less.
func (c *churn) run(ctx context.Context, rate int) (written int, err error) {
	work := make(chan shape.Request)
	var count atomic.Int64
	var writers sync.WaitGroup
	errs := make(chan error, churnWriters)
	for i := range churnWriters {
		writers.Go(func() {
			for r := range work {
				// It is written to its end: the rate is of what was written.
				if err := c.api.Send(context.WithoutCancel(ctx), watchedConnection+1+i%3, r); err != nil {
					errs <- err
					return
				}
				count.Add(1)
			}
		})
	}
	began := time.Now()
	for i := 0; err == nil && ctx.Err() == nil; i++ {
		if ahead := time.Duration(i)*time.Second/time.Duration(rate) - time.Since(began); ahead > 0 {
			time.Sleep(ahead)
		}
		select {
		case work <- c.requests[i%len(c.requests)]:
		case err = <-errs:
		case <-ctx.Done():
		}
	}
	close(work)
	writers.Wait()
	return int(count.Load()), err
}
