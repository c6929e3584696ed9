// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
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

// sample is one connection, of one of the clients.
type sample struct {
	stream int
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

func (f *flow) run(ctx context.Context, r route, stream int) {
	for i := stream; wait(ctx, pause) == nil; i++ {
		s := sample{stream: stream, begun: time.Now()}
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
// last one began: since itself, if there was none. Each client must have been answered
// so often after it: on a machine that is busy the flow may have paused, or one
// connection still be on its way to the pod.
func (f *flow) awaitGone(ctx context.Context, pod string, often int, since time.Time) (time.Time, error) {
	last := since
	for {
		silent, n := time.Since(last) >= quiet, f.answered(last)
		switch {
		case silent && n >= often:
			return last, nil
		case time.Since(since) <= followMax:
		case silent:
			return last, fmt.Errorf("%w: a client was answered %d times in %s without %s, and not %d times", errNotFollowed, n, followMax, pod, often)
		default:
			return last, fmt.Errorf("%w: %s still gets connections after %s", errNotFollowed, pod, followMax)
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return last, err
		}
		if times := f.begun(pod, since); len(times) > 0 {
			last = times[len(times)-1]
		}
	}
}

// answered is how many connections begun since a time have been answered, of the client
// that has the fewest.
func (f *flow) answered(since time.Time) int {
	var n [streams]int
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.samples {
		if s.err == nil && s.begun.After(since) {
			n[s.stream]++
		}
	}
	return slices.Min(n[:])
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
