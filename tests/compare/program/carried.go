// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// carried is when Services began to carry packets.
type carried struct {
	priority time.Time // default/kubernetes and kube-dns; zero is not seen
	all      time.Time
	sweep    time.Duration // how long the last look at everything took, which all includes
	left     int           // Services that do not carry packets when it is given up
}

// crowd asks all Services of a shape, few at a time, and knows which have answered.
//
// It asks the first ones every 2 ms, and now and then a few of the others at random, so
// that it takes little of the machine: one packet through 10,000 rules of iptables takes
// as long as 50 others. Once nearly all of a sample answer it asks all, until none is
// missing.
type crowd struct {
	shape    shape.Shape
	s        *socket
	first    []netip.AddrPort
	answered []atomic.Bool // by Service
	greeted  []atomic.Bool // of first
	pending  []int
	sample   []int        // asked last
	sweeping time.Time    // since when all pending ones are asked; zero is not
	latest   atomic.Int64 // when the last answer came that was new, Unix time in ns
	prior    atomic.Int64 // the same of first
}

const (
	priorityEvery = 2 * time.Millisecond
	sampleWait    = 20 * time.Millisecond // for answers, and between two samples
	sweepWait     = 30 * time.Millisecond
	sampleSize    = 100
	// share bounds what asking costs: after a sample, that many times as long a pause.
	share = 30
)

func newCrowd(n *site.Node, sh shape.Shape) (*crowd, error) {
	s, err := openSocket(n.Client, n.Inside)
	if err != nil {
		return nil, err
	}
	c := &crowd{shape: sh, s: s, first: []netip.AddrPort{shape.Kubernetes, shape.DNS}, answered: make([]atomic.Bool, sh.Services)}
	c.greeted = make([]atomic.Bool, len(c.first))
	for i := range sh.Services {
		c.pending = append(c.pending, i)
	}
	go s.listen(c.hear)
	return c, nil
}

func (c *crowd) hear(p seen, at time.Time) {
	if p.flags&(flagSYN|flagACK) != flagSYN|flagACK {
		return
	}
	if i := slices.Index(c.first, p.from); i >= 0 {
		if !c.greeted[i].Swap(true) {
			c.prior.Store(at.UnixNano())
		}
		return
	}
	if i, ok := c.shape.ServiceAt(p.from.Addr()); ok && p.from.Port() == shape.Port && !c.answered[i].Swap(true) {
		c.latest.Store(at.UnixNano())
	}
}

// await returns when all have answered, or the time is up, or gone returns an error.
func (c *crowd) await(ctx context.Context, limit time.Duration, gone func() error) (r carried, err error) {
	favoured(func() { r, err = c.ask(ctx, limit, gone) })
	return r, err
}

func (c *crowd) ask(ctx context.Context, limit time.Duration, gone func() error) (r carried, err error) {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(priorityEvery)
	defer tick.Stop()
	var next time.Time
	for {
		greeted := c.allGreeted()
		if !greeted {
			err = c.s.ask(c.first...)
		}
		if err == nil && time.Now().After(next) {
			var wait time.Duration
			if wait, err = c.askSome(); len(c.pending) == 0 && greeted {
				r.priority, r.all, r.sweep = time.Unix(0, c.prior.Load()), time.Unix(0, c.latest.Load()), c.swept()
				return r, nil
			}
			next = time.Now().Add(wait)
		}
		if err = errors.Join(err, gone(), context.Cause(ctx)); err != nil {
			return r, err
		}
		if time.Now().After(deadline) {
			if c.allGreeted() {
				r.priority = time.Unix(0, c.prior.Load())
			}
			r.left = max(1, len(c.pending))
			return r, nil
		}
		<-tick.C
	}
}

// askSome asks a sample of those that have not answered yet, or all of them if nearly
// all of the last sample have. It returns how long to wait for answers.
func (c *crowd) askSome() (wait time.Duration, err error) {
	now := time.Now()
	full := c.sample != nil && c.count(c.sample)*100 >= len(c.sample)*95
	c.pending = slices.DeleteFunc(c.pending, func(i int) bool { return c.answered[i].Load() })
	switch {
	case !full:
		c.sweeping = time.Time{}
		c.sample = c.draw(sampleSize)
	default:
		if c.sweeping.IsZero() {
			c.sweeping = now
		}
		c.sample = slices.Clone(c.pending)
	}
	err = c.askServices(c.sample)
	if full {
		return sweepWait, err
	}
	return max(sampleWait, share*time.Since(now)), err
}

// swept is how long the last look at everything took, until the last new answer.
func (c *crowd) swept() time.Duration {
	if c.sweeping.IsZero() {
		return 0
	}
	return max(0, time.Unix(0, c.latest.Load()).Sub(c.sweeping))
}

func (c *crowd) allGreeted() bool {
	return !slices.ContainsFunc([]int{0, 1}, func(i int) bool { return !c.greeted[i].Load() })
}

// count is how many of the Services have answered.
func (c *crowd) count(services []int) (n int) {
	for _, i := range services {
		if c.answered[i].Load() {
			n++
		}
	}
	return n
}

// draw returns some of those that have not answered yet, at random.
func (c *crowd) draw(n int) []int {
	n = min(n, len(c.pending))
	for i := range n {
		j := i + rand.IntN(len(c.pending)-i)
		c.pending[i], c.pending[j] = c.pending[j], c.pending[i]
	}
	return slices.Clone(c.pending[:n])
}

func (c *crowd) askServices(services []int) error {
	to := make([]netip.AddrPort, len(services))
	for i, service := range services {
		to[i] = c.shape.Frontend(service)
	}
	return c.s.ask(to...)
}

func (c *crowd) close() error { return c.s.close() }

// notDone says in a row what was given up.
func (r carried) notDone(limit time.Duration) string {
	if r.left == 0 {
		return ""
	}
	if r.left == 1 {
		return fmt.Sprintf("not done after %v: one Service does not carry packets", limit)
	}
	return fmt.Sprintf("not done after %v: %d Services do not carry packets", limit, r.left)
}
