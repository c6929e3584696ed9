// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

var _ Source = &Synthetic{}

// Run implements Source: it delivers node-0, the ServiceCIDR and everything else,
// then churns.
func (s *Synthetic) Run(ctx context.Context, sink Sink) error {
	if err := s.Validate(); err != nil {
		return fmt.Errorf("synthetic cluster: %w", err)
	}
	sink.SetNode(s.Node(0))
	sink.SetServiceCIDR(s.ServiceCIDR())
	for i := range s.Services {
		if ctx.Err() != nil {
			return nil
		}
		sink.SetService(s.Service(i))
		for _, slice := range s.Slices(i) {
			sink.SetSlice(slice)
		}
	}
	sink.Synced()
	s.churn(ctx, sink)
	return nil
}

// churn changes endpoints at the rate asked for until ctx ends. If the receiver
// is slower than that, so is churn: nothing piles up.
func (s *Synthetic) churn(ctx context.Context, sink Sink) {
	if s.Churn == 0 || s.Services == 0 || s.Endpoints == 0 {
		<-ctx.Done()
		return
	}
	c := newChurn(s)
	ticker := time.NewTicker(max(time.Duration(float64(time.Second)/s.Churn), time.Millisecond))
	defer ticker.Stop()
	owed, last := 0.0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			owed = min(owed+now.Sub(last).Seconds()*s.Churn, s.Churn) // no more than a second's worth
			last = now
			for ; owed >= 1 && ctx.Err() == nil; owed-- {
				c.step(sink)
			}
		}
	}
}

// churn is where the endpoints of a Synthetic have got to.
type churn struct {
	s     *Synthetic
	rand  *rand.Rand
	moved map[int]map[int]int // Service → place → pod, where it is no longer the first one
	fresh int                 // pods brought in so far
}

func newChurn(s *Synthetic) *churn {
	return &churn{s: s, rand: rand.New(rand.NewPCG(s.Seed, 1)), moved: map[int]map[int]int{}}
}

// step changes one place of one Service: a pod there goes, or is replaced by a
// new one; in a free place a new one appears.
func (c *churn) step(sink Sink) {
	i, place := c.rand.IntN(c.s.Services), c.rand.IntN(c.s.Endpoints)
	moved := c.moved[i]
	if moved == nil {
		moved = map[int]int{}
		c.moved[i] = moved
	}
	pod, known := moved[place]
	if free := known && pod < 0; free || c.rand.IntN(2) == 0 {
		moved[place] = maxPods + c.fresh%(maxPods-1)
		c.fresh++
	} else {
		moved[place] = -1
	}
	for _, v6 := range c.s.families() {
		sink.SetSlice(c.s.slice(i, place/sliceSize, v6, moved))
	}
}
