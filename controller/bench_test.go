// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"testing"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
)

var loads = []source.Synthetic{
	{Services: 1_000, Endpoints: 10},
	{Services: 30_000, Endpoints: 10},
	{Services: 44_125, Endpoints: 1},
}

// loaded returns a controller that knows a load but has not made a pass yet.
func loaded(load *source.Synthetic) *Controller {
	config := testConfig()
	delete(config.Options, nft.IPv6)
	c := New(config, Discard{})
	for i := range load.Services {
		c.queue.SetService(load.Service(i))
		for _, s := range load.Slices(i) {
			c.queue.SetSlice(s)
		}
	}
	pending, _ := c.queue.take()
	c.merge(pending)
	c.queue.Synced()
	return c
}

// BenchmarkColdStart is what user space takes from synced state to encoded
// transactions, without encoding.
func BenchmarkColdStart(b *testing.B) {
	for _, load := range loads {
		b.Run(fmt.Sprintf("%dx%d", load.Services, load.Endpoints), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				c := loaded(&load)
				b.StartTimer()
				if err := c.pass(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkChange is what user space takes for one endpoint less and one more:
// flat, whatever the number of Services.
func BenchmarkChange(b *testing.B) {
	for _, load := range loads {
		b.Run(fmt.Sprintf("%dx%d", load.Services, load.Endpoints), func(b *testing.B) {
			c := loaded(&load)
			if err := c.pass(context.Background()); err != nil {
				b.Fatal(err)
			}
			full := load.Slices(load.Services / 2)[0]
			fewer := full.DeepCopy()
			fewer.Endpoints = fewer.Endpoints[:len(fewer.Endpoints)-1]
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%2 == 0 {
					c.queue.SetSlice(fewer)
				} else {
					c.queue.SetSlice(full)
				}
				if err := c.pass(context.Background()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
