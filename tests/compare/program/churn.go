// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// churn measures changes while many others are written.
func (v *visit) churn(ctx context.Context) error {
	c, err := newChurn(v.api, v.shape)
	if err != nil {
		return err
	}
	w, err := startWatch(v.api, v.node, 1, v.versions)
	if err != nil {
		return err
	}
	defer w.close()
	v.takeLockQuietly()
	for i, rate := range v.plan.rates {
		lasts := v.plan.churn
		if i == len(v.plan.rates)-1 {
			lasts = max(lasts, v.plan.sustained)
		}
		if err := v.churnAt(ctx, c, w, rate, lasts); err != nil {
			return err
		}
	}
	v.takeLock("churn")
	return v.proxy.Gone()
}

// churnAt measures changes while others are written at a rate, for so long.
func (v *visit) churnAt(ctx context.Context, c *churn, w *watch, rate int, lasts time.Duration) error {
	writing, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	var written int
	var failed error
	var writer sync.WaitGroup
	before, began := cpuTime(v.proxy.PID()), time.Now()
	writer.Go(func() { written, failed = c.run(writing, rate) })
	packets, writes, note, err := v.changesDuring(ctx, writing, w)
	writer.Wait()
	used, took := cpuTime(v.proxy.PID())-before, time.Since(began)
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	variant := fmt.Sprintf("%d/s", rate)
	row := v.row("churn", variant, "first-packet", "s")
	row.Note = note
	v.add(row, packets...)
	v.add(v.row("churn", variant, "api-write", "s"), writes...)
	v.add(v.row("churn", variant, "rate", "1/s"), float64(written)/lasts.Seconds())
	v.add(v.row("churn", variant, "cpu-per-change", "s"), used.Seconds()/float64(max(1, written+len(packets))))
	v.add(v.row("churn", variant, "cpu-share", "ratio"), used.Seconds()/took.Seconds())
	v.settle(ctx)
	return nil
}

// changesDuring measures changes, one soon after the other, for as long as writing lasts.
func (v *visit) changesDuring(ctx, writing context.Context, w *watch) (packets, writes []float64, note string, err error) {
	for writing.Err() == nil {
		got, err := w.change(ctx, false, v.changeLimit())
		if errors.Is(err, errUnseen) {
			return packets, writes, err.Error(), nil
		}
		if err != nil {
			return nil, nil, "", err
		}
		packets, writes = append(packets, got.packet.Seconds()), append(writes, got.write.Seconds())
		v.sleep(writing, time.Duration(10+rand.IntN(20))*time.Millisecond)
	}
	return packets, writes, "", nil
}
