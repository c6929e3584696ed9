// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kube-nft/kube-nft/tests/faults/wire"
)

// How long the soak is, and how hard.
var (
	soakFor    = flag.Duration("soak", time.Minute, "how long the soak is")
	soakRate   = flag.Int("soak-rate", 200, "changes of objects a second in the soak")
	soakNumber = flag.Int("soak-services", 1000, "Services in the soak")
)

// TestSoak changes a cluster without a pause, in all ways, with a fault now and then.
// What a process must not have more and more of stays flat, nothing is lost, and in the
// end the tables are what compiling from nothing gives.
func TestSoak(t *testing.T) {
	s := newAPISite(t)
	c := newChurn(s, *soakNumber)
	s.objects.put(t, append(steady.objects(), sticky.objects()...)...)
	began := time.Now()
	c.fill()
	t.Logf("%d Services made in %v", len(c.specs), time.Since(began).Round(time.Second))
	s.start()
	s.ready()
	tr := s.carryOnly(func(flow) bool { return true }, 200*time.Millisecond, steady, sticky)
	before := s.vitals()

	ctx, stop := context.WithTimeout(t.Context(), *soakFor)
	defer stop()
	began, busy := time.Now(), s.processorTime()
	done := make(chan error, 1)
	go func() { done <- c.run(ctx, *soakRate) }()
	samples := s.sample(ctx, c, tr)
	if err := <-done; err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	o := outcome{fault: fmt.Sprintf("soak of %v, %d changes, %.0f a second", took.Round(time.Second), c.changes.Load(),
		float64(c.changes.Load())/took.Seconds()), injected: int(c.faults.Load()), before: before}
	ended := time.Now()
	s.right(soon)
	o.repair = time.Since(ended)
	o.after = s.vitals()
	if rate := float64(c.changes.Load()) / took.Seconds(); rate < 0.5*float64(*soakRate) {
		t.Errorf("the API server took %.0f changes a second, not %d", rate, *soakRate)
	}
	t.Logf("kube-nft used %.1f %% of a CPU", 100*(s.processorTime()-busy).Seconds()/took.Seconds())
	t.Logf("changes: %v", &c.kinds)
	samples.flat(t)
	s.conclude(o, tr)
}

// kind is a way in which the cluster changes.
type kind int

const (
	scale kind = iota
	replace
	turnAffinity
	turnPolicy
	rename
	renew
	dualStack
	numKinds
)

func (k kind) String() string {
	return [...]string{"scale", "replace", "affinity", "policy", "rename", "delete and create", "dual stack"}[k]
}

// kinds counts changes by kind.
type kinds [numKinds]atomic.Int64

func (k *kinds) String() string {
	var parts []string
	for i := range k {
		parts = append(parts, fmt.Sprintf("%v %d", kind(i), k[i].Load()))
	}
	return strings.Join(parts, ", ")
}

// churn is a cluster that changes.
type churn struct {
	s       *site
	api     *apiObjects
	specs   []spec
	changes atomic.Int64 // of objects
	faults  atomic.Int64
	kinds   kinds
}

// draw gives a Service other endpoints, none to eleven.
func (s *spec) draw(random *rand.Rand) {
	s.pods = nil
	for n := random.IntN(12); len(s.pods) < n; {
		s.pods = append(s.pods, 300+random.IntN(20000))
	}
}

// writers is how many change the cluster at once, each some of the Services.
const writers = 24

func newChurn(s *site, n int) *churn {
	c := &churn{s: s, api: s.objects.(*apiObjects), specs: make([]spec, n)}
	// As they are in the end, when all has changed many times, so that nothing grows
	// because there is more of it.
	random := rand.New(rand.NewPCG(1, 7))
	for i := range c.specs {
		one := spec{name: fmt.Sprintf("soak-%d", i), n: 16 + i, v6: random.IntN(2) == 0, sticky: 600 * int32(random.IntN(2))}
		if i%5 == 0 {
			one.nodePort, one.local = int32(30100+i), random.IntN(2) == 0
		}
		one.draw(random)
		c.specs[i] = one
	}
	return c
}

// fill makes all Services.
func (c *churn) fill() {
	c.s.t.Helper()
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < len(c.specs) && errs[w] == nil; i += writers {
				errs[w] = c.write(c.s.t.Context(), c.specs[i].objects()...)
			}
		})
	}
	wg.Wait()
	c.s.Must(errs...)
	c.changes.Store(0)
}

// run changes the cluster at a rate until ctx ends, and lets a fault happen now and then.
func (c *churn) run(ctx context.Context, rate int) error {
	due, began := make(chan struct{}), time.Now()
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if c.changes.Load() < int64(time.Since(began).Seconds()*float64(rate)) {
				select {
				case due <- struct{}{}:
				case <-ctx.Done():
				}
			}
		}
	}()
	var wg sync.WaitGroup
	wg.Go(func() { c.misbehave(ctx) })
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 8))
			for errs[w] == nil {
				select {
				case <-ctx.Done():
					return
				case <-due:
					i := w + writers*random.IntN(len(c.specs)/writers)
					errs[w] = c.change(&c.specs[i], random)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// write makes objects what they are to be; each is a change.
func (c *churn) write(ctx context.Context, all ...runtime.Object) error {
	for _, o := range all {
		if err := c.api.write(ctx, o); err != nil {
			return err
		}
		c.changes.Add(1)
	}
	return nil
}

// change changes one Service. It is done to the end even if the soak ends meanwhile.
func (c *churn) change(s *spec, random *rand.Rand) error {
	ctx := context.Background()
	k := kind(random.IntN(int(numKinds)))
	if random.IntN(2) == 0 {
		k = kind(random.IntN(2)) // endpoints change most of all
	}
	c.kinds[k].Add(1)
	switch k {
	case scale:
		s.draw(random)
		return c.write(ctx, s.slice(random.IntN(1+btoi(s.v6))))
	case replace:
		if len(s.pods) == 0 {
			s.pods = []int{300}
		}
		s.pods[random.IntN(len(s.pods))] = 300 + random.IntN(20000)
		return c.write(ctx, s.slice(random.IntN(1+btoi(s.v6))))
	case turnAffinity:
		s.sticky = 600 - s.sticky
		return c.write(ctx, s.service())
	case turnPolicy:
		s.local = !s.local && s.nodePort != 0
		return c.write(ctx, s.service())
	}
	// Another Service in its place, at the same addresses.
	if err := c.api.deleteOf(ctx, s.name, s.v6); err != nil {
		return fmt.Errorf("%v: %w", k, err)
	}
	c.changes.Add(int64(2 + btoi(s.v6)))
	switch k {
	case rename:
		base, _, _ := strings.Cut(s.name, "-of-")
		s.name = fmt.Sprintf("%s-of-%d", base, random.IntN(1000))
	case dualStack:
		s.v6 = !s.v6
	}
	if err := c.make(ctx, s); err != nil {
		return fmt.Errorf("%v: %w", k, err)
	}
	return nil
}

// make makes a Service. The API server may still, or again, hold the addresses of the
// one that was there before: a loop of its own repairs what it takes for a mistake
// (repairip.go). Then the Service gets others.
func (c *churn) make(ctx context.Context, s *spec) error {
	const another = 4096
	var err error
	for range 4 {
		if err = c.write(ctx, s.objects()...); err == nil || !strings.Contains(err.Error(), "already allocated") {
			return err
		}
		s.n ^= another
	}
	return err
}

// misbehaveEvery is how often a fault happens.
const misbehaveEvery = 7 * time.Second

// misbehave lets a fault happen now and then: of the API server, or by a neighbour.
func (c *churn) misbehave(ctx context.Context) {
	faults := []func() error{
		func() error { c.s.proxy.Cut(); return nil },
		func() error {
			c.s.proxy.Set(wire.Fault{Answer: firstOf(3, expired)})
			c.s.proxy.Cut()
			return nil
		},
		func() error { c.s.proxy.Set(late(50 * time.Millisecond)); return nil },
		func() error {
			c.s.proxy.Set(garbled(func(data []byte) []byte { return data[:len(data)/2] }))
			return nil
		},
		func() error {
			return c.s.node.NFT("add table inet neighbour\nadd chain inet neighbour idle\ndelete table inet neighbour")
		},
		func() error { return c.s.node.NFT("add element ip kube-nft KUBE-CLUSTER-IP { 10.96.250.1 }") },
	}
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			c.s.proxy.Set(wire.Fault{})
			return
		case <-time.After(misbehaveEvery):
		}
		c.s.proxy.Set(wire.Fault{})
		if err := faults[i%len(faults)](); err != nil {
			c.s.t.Errorf("fault %d: %v", i%len(faults), err)
			return
		}
		c.faults.Add(1)
	}
}

// processorTime is what kube-nft has used so far.
func (s *site) processorTime() time.Duration {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.agent.PID()))
	s.Must(err)
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest) // from the third field on; the times are the 14th and 15th, in 1/100 s
	user, err := strconv.Atoi(f[11])
	s.Must(err)
	system, err := strconv.Atoi(f[12])
	s.Must(err)
	return time.Duration(user+system) * 10 * time.Millisecond
}
