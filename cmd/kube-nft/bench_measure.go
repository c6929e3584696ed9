// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// measure measures one size.
func measure(ctx context.Context, s size, o benchOptions) (result, error) {
	r := result{size: s}
	load := &source.Synthetic{Services: s.services, Endpoints: s.endpoints, DualStack: o.dual}
	for i := range o.rounds {
		last := i == o.rounds-1
		if err := measureRound(ctx, load, o, &r, last); err != nil {
			return r, err
		}
	}
	user := &script{load: load, changes: o.changes}
	if err := user.play(ctx, o, controller.Discard{}); err != nil {
		return r, err
	}
	r.userSpace = user.change
	return r, nil
}

// measureRound measures a cold start, its floor and a restart; in the last round
// also the changes.
func measureRound(ctx context.Context, load *source.Synthetic, o benchOptions, r *result, last bool) error {
	lab, err := netlab.New()
	if err != nil {
		return err
	}
	defer lab.Close()
	conn, err := openIn(lab, "measured")
	if err != nil {
		return err
	}
	defer conn.Close()
	tape := &recorder{Conn: conn}
	run := &script{load: load, heap: last}
	if last {
		run.changes = o.changes
	}
	if err := run.play(ctx, o, tape); err != nil {
		return err
	}
	r.cold = append(r.cold, run.cold.Took)
	r.batches = run.cold.Batches
	r.change, r.swap, r.verdict, r.heap = run.change, run.swap, run.verdict, max(r.heap, run.used)
	restart := &script{load: load}
	if err := restart.play(ctx, o, conn); err != nil {
		return err
	}
	r.restart = append(r.restart, restart.cold.Took)
	r.writes += restart.cold.Batches
	floor, err := openIn(lab, "floor")
	if err != nil {
		return err
	}
	defer floor.Close()
	return tape.replay(ctx, floor, run.cold.Batches, r)
}

func openIn(lab *netlab.Lab, name string) (*kernel.Conn, error) {
	ns, err := lab.Namespace(name)
	if err != nil {
		return nil, err
	}
	return kernel.Open(kernel.Options{NetNS: ns.Fd()})
}

// script is a source that delivers a load, then changes it one endpoint at a time,
// each after the last one was committed.
type script struct {
	load    *source.Synthetic
	changes int
	heap    bool

	commits      chan controller.Commit
	cold         controller.Commit
	change, swap []time.Duration
	verdict      []time.Duration
	used         uint64
}

// play runs a controller on the script until it ends.
func (s *script) play(ctx context.Context, o benchOptions, kernel controller.Dataplane) error {
	s.commits = make(chan controller.Commit, 1)
	families := nft.Families[:1]
	if o.dual {
		families = nft.Families[:]
	}
	config := controller.Config{
		NodeName:  "node-0",
		Rules:     controller.Rules{Options: make(map[nft.Family]nft.Options)},
		Logger:    slog.New(slog.NewTextHandler(io.Discard, nil)),
		Committed: func(c controller.Commit) { s.commits <- c },
	}
	for _, f := range families {
		config.Options[f] = nft.Options{MasqueradeBit: nft.DefaultMasqueradeBit, Counters: true}
	}
	four := config.Options[nft.IPv4]
	four.LocalPods = nft.LocalPods{Prefix: benchPods}
	config.Options[nft.IPv4] = four
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	over := make(chan struct{})
	go func() {
		done <- controller.New(config, kernel).Run(ctx, sourceFunc(func(ctx context.Context, sink source.Sink) error {
			defer close(over)
			return s.run(ctx, sink)
		}))
	}()
	select {
	case <-over:
		cancel()
	case err := <-done:
		return err
	}
	return <-done
}

type sourceFunc func(context.Context, source.Sink) error

func (f sourceFunc) Run(ctx context.Context, sink source.Sink) error { return f(ctx, sink) }

func (s *script) run(ctx context.Context, sink source.Sink) error {
	for i := range s.load.Services {
		sink.SetService(s.load.Service(i))
		for _, slice := range s.load.Slices(i) {
			sink.SetSlice(slice)
		}
	}
	runtime.GC()
	sink.Synced()
	var err error
	if s.cold, err = s.await(ctx); err != nil {
		return err
	}
	if s.heap {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		s.used = m.HeapAlloc
	}
	for i := range s.changes {
		if err := s.changeOne(ctx, sink, 2+i%(s.load.Services-2)); err != nil {
			return err
		}
	}
	return nil
}

// changeOne removes an endpoint of a Service and adds it back, replaces it by
// another one and back, and does the same with as many endpoints as it takes for
// another verdict. A Service's only endpoint is not removed, but a second one
// added: what it is refused by is another story.
func (s *script) changeOne(ctx context.Context, sink source.Sink, i int) error {
	original := s.load.Slices(i)[0]
	fewer := original.DeepCopy()
	fewer.Endpoints = fewer.Endpoints[:len(fewer.Endpoints)-1]
	if s.load.Endpoints == 1 {
		fewer.Endpoints = append(original.DeepCopy().Endpoints, *original.Endpoints[0].DeepCopy())
		fewer.Endpoints[1].Addresses = []string{"10.255.255.1"}
	}
	other := original.DeepCopy()
	other.Endpoints[len(other.Endpoints)-1].Addresses = []string{"10.255.255.2"}
	crossing := original.DeepCopy()
	for n := len(crossing.Endpoints); n > 1 && nft.Modulus(n) == nft.Modulus(len(original.Endpoints)); n-- {
		crossing.Endpoints = crossing.Endpoints[:n-1]
	}
	steps := []step{{fewer, &s.change}, {original, &s.change}, {other, &s.swap}, {original, &s.swap}}
	if len(crossing.Endpoints) < len(original.Endpoints) {
		steps = append(steps, step{crossing, &s.verdict}, step{original, &s.verdict})
	}
	for _, step := range steps {
		slice := step.to.DeepCopy()
		start := time.Now()
		sink.SetSlice(slice)
		if _, err := s.await(ctx); err != nil {
			return err
		}
		*step.into = append(*step.into, time.Since(start))
	}
	return nil
}

// step is a change and where its time belongs.
type step struct {
	to   *discoveryv1.EndpointSlice
	into *[]time.Duration
}

// await waits for a commit that changed something, or that synced.
func (s *script) await(ctx context.Context) (controller.Commit, error) {
	for {
		select {
		case c := <-s.commits:
			if c.Batches > 0 || c.Resync {
				return c, nil
			}
		case <-ctx.Done():
			return controller.Commit{}, ctx.Err()
		case <-time.After(5 * time.Minute):
			return controller.Commit{}, fmt.Errorf("no commit for five minutes")
		}
	}
}

// recorder keeps what was committed, to be committed again elsewhere.
type recorder struct {
	*kernel.Conn
	resets  []nft.Table
	applied [][]nft.Change
}

// Reset implements controller.Dataplane.
func (r *recorder) Reset(ctx context.Context, t nft.Table) error {
	r.resets = append(r.resets, t)
	return r.Conn.Reset(ctx, t)
}

// Apply implements controller.Dataplane.
func (r *recorder) Apply(ctx context.Context, changes ...nft.Change) error {
	kept := slices.Clone(changes)
	for i := range kept {
		d := &kept[i].Delta
		d.Add, d.Delete = slices.Clone(d.Add), slices.Clone(d.Delete)
	}
	r.applied = append(r.applied, kept)
	return r.Conn.Apply(ctx, changes...)
}

// replay commits everything again, encoded beforehand: the floor.
func (r *recorder) replay(ctx context.Context, conn *kernel.Conn, coldBatches int, into *result) error {
	var cold time.Duration
	steps := 4
	if len(into.verdict) > 0 {
		steps = 6
	}
	for i := range r.resets {
		start := time.Now()
		if err := conn.Reset(ctx, r.resets[i]); err != nil {
			return err
		}
		cold += time.Since(start)
	}
	for i, changes := range r.applied {
		p, err := conn.Prepare(changes...)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := p.Commit(); err != nil {
			return err
		}
		took := time.Since(start)
		switch at := i + len(r.resets); {
		case at < coldBatches:
			cold += took
			into.longest = max(into.longest, took)
		case (at-coldBatches)%steps < 2: // as changeOne orders them
			into.changeFloor = append(into.changeFloor, took)
		case (at-coldBatches)%steps >= 4:
			into.verdictFloor = append(into.verdictFloor, took)
		}
	}
	into.coldFloor = append(into.coldFloor, cold)
	return nil
}
