// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

const (
	streams = 4                // clients at a time
	pause   = time.Millisecond // of a client between two connections
)

// flow is a steady stream of connections on one route and what became of them.
type flow struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	samples []sample
}

// sample is one connection.
type sample struct {
	begun  time.Time
	server string
	err    error
}

// startFlow sends connections until stop is called or ctx ends.
func startFlow(ctx context.Context, r route) *flow {
	ctx, cancel := context.WithCancel(ctx)
	f := &flow{cancel: cancel}
	for i := range streams {
		f.wg.Go(func() { f.run(ctx, r, i) })
	}
	return f
}

func (f *flow) run(ctx context.Context, r route, i int) {
	for ; wait(ctx, pause) == nil; i++ {
		s := sample{begun: time.Now()}
		// Not cut off by the end of the flow: that is no failure.
		a, err := r.from.Ask(context.WithoutCancel(ctx), network(r.port.Protocol), r.addrs[i%len(r.addrs)], netlab.Timeout(askTimeout))
		s.server, s.err = a.Server, err
		f.mu.Lock()
		f.samples = append(f.samples, s)
		f.mu.Unlock()
	}
}

// stop ends the flow and waits for the last answers. It is idempotent.
func (f *flow) stop() {
	f.cancel()
	f.wg.Wait()
}

// awaitGone waits until a pod gets no connections any more, and returns when the
// last one began: since itself, if there was none. At least so many others must have
// been answered after it: the flow may have paused, on a machine that is busy.
func (f *flow) awaitGone(ctx context.Context, pod string, others int, since time.Time) (time.Time, error) {
	last := since
	for time.Since(last) < quiet || f.answered(last) < others {
		if time.Since(since) > followMax {
			return last, fmt.Errorf("%w: %s still gets connections after %s", errNotFollowed, pod, followMax)
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return last, err
		}
		if times := f.begun(pod, since); len(times) > 0 {
			last = times[len(times)-1]
		}
	}
	return last, nil
}

// answered is how many connections begun since a time have been answered.
func (f *flow) answered(since time.Time) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.samples {
		if s.err == nil && s.begun.After(since) {
			n++
		}
	}
	return n
}

// awaitBack waits until a pod gets connections, and returns when the first began.
func (f *flow) awaitBack(ctx context.Context, pod string, since time.Time) (time.Time, error) {
	for time.Since(since) < followMax {
		if err := wait(ctx, time.Millisecond); err != nil {
			return since, err
		}
		if times := f.begun(pod, since); len(times) > 0 {
			return times[0], nil
		}
	}
	return since, fmt.Errorf("%w: %s gets no connections after %s", errNotFollowed, pod, followMax)
}

// begun lists when the connections that a pod answered began, in the order of
// their answers.
func (f *flow) begun(pod string, since time.Time) []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	var times []time.Time
	for _, s := range f.samples {
		if s.server == pod && s.begun.After(since) {
			times = append(times, s.begun)
		}
	}
	return times
}

// answers counts the answers to connections begun in a period, by pod.
func (f *flow) answers(p period) map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	answers := make(map[string]int)
	for _, s := range f.samples {
		if s.err == nil && p.contains(s.begun) {
			answers[s.server]++
		}
	}
	return answers
}

// outcome counts all connections and those that failed, with the first failure.
func (f *flow) outcome() (sent, failed int, first error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.samples {
		if s.err == nil {
			continue
		}
		if failed++; first == nil {
			first = s.err
		}
	}
	return len(f.samples), failed, first
}
