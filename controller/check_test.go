// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// deaf is the kernel, whose notifications are lost without a word, and which counts what
// is asked.
type deaf struct {
	Dataplane
	looks, reads atomic.Int32
	most         atomic.Int32  // elements of one look
	wrong        func() bool   // whether the constant part looks wrong, though it is not; nil is never
	lost         chan struct{} // one word: now it is said that something was lost
}

func (d *deaf) Watch(ctx context.Context, begun func(), changed func(nft.Foreign)) error {
	begun()
	select {
	case <-d.lost:
		changed(nft.Foreign{Lost: true})
	case <-ctx.Done():
	}
	<-ctx.Done()
	return nil
}

func (d *deaf) Look(ctx context.Context, s *nft.Schema, keys []nft.Element, sets []nft.Set) (nft.Contents, error) {
	d.looks.Add(1)
	d.most.Store(max(d.most.Load(), int32(len(keys))))
	return d.Dataplane.Look(ctx, s, keys, sets)
}

func (d *deaf) Inspect(ctx context.Context, s *nft.Schema) (nft.Contents, nft.Counts, error) {
	d.looks.Add(1)
	if d.wrong != nil && d.wrong() {
		return nft.Contents{}, nft.Counts{}, nft.ErrSchema
	}
	return d.Dataplane.Inspect(ctx, s)
}

func (d *deaf) Read(ctx context.Context, s *nft.Schema) (nft.Contents, error) {
	d.reads.Add(1)
	return d.Dataplane.Read(ctx, s)
}

// checking runs a controller that is deaf to what others do.
func checking(t *testing.T, ns *netlab.Namespace, every time.Duration, src source.Source) (*Controller, *deaf, *netlab.Output, *prometheus.Registry) {
	t.Helper()
	d := &deaf{Dataplane: openKernel(t, ns), lost: make(chan struct{}, 1)}
	log, registry := &netlab.Output{}, prometheus.NewRegistry()
	config := testConfig()
	config.Logger = slog.New(slog.NewTextHandler(log, nil))
	config.CheckEvery, config.Metrics = every, registry
	programmed := make(chan struct{})
	first := sync.OnceFunc(func() { close(programmed) })
	config.Committed = func(Commit) { first() }
	c := New(config, d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-programmed:
	case <-time.After(20 * time.Second):
		t.Fatal("not programmed")
	}
	return c, d, log, registry
}

// TestCheck: what no notification told of is found and put right, with a word. Where
// nobody else has written there is nothing to look for.
func TestCheck(t *testing.T) {
	t.Parallel()
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	load := &source.Synthetic{Services: 500, Endpoints: 5, DualStack: true, NodePorts: 0.2, ExternalIPs: 0.1}
	c, d, log, registry := checking(t, ns, 50*time.Millisecond, load)
	want, err := ns.Ruleset()
	lab.Must(err)
	count := func(name string) float64 { return values(t, registry)[name] }
	lab.Must(netlab.Poll(5*time.Second, func() error {
		if count("kube_nft_checks_total skipped") < 5 {
			return errors.New("nothing was left out")
		}
		return nil
	}))
	if n := d.looks.Load(); n != 0 {
		t.Errorf("%d looks, though nobody else had written", n)
	}
	lab.Must(ns.NFT("add table ip other\nadd set ip other s { type ipv4_addr; }"))
	lab.Must(netlab.Poll(20*time.Second, func() error {
		if count("kube_nft_checks_total clean") != 1 {
			return errors.New("somebody else has written, and there was no look")
		}
		return nil
	}))
	lab.Must(ns.NFT("delete table ip other"))
	reads := d.reads.Load()
	for i, tc := range []struct {
		script string
		whole  bool
	}{
		{"delete element ip kube-nft KUBE-CLUSTER-IP { 10.64.0.1 }", false},
		{"flush set ip6 kube-nft KUBE-CLUSTER-IP", false},
		{"flush map ip kube-nft KUBE-SEP", false},
		{"flush map ip kube-nft KUBE-NODEPORTS", false},
		{"add element ip kube-nft KUBE-NODE-IP { 192.0.2.66 }", true},
		{"insert rule ip6 kube-nft OUTPUT drop", true},
		{"delete table ip kube-nft", true},
	} {
		before := count("kube_nft_checks_total found")
		lab.Must(ns.NFT(tc.script))
		lab.Must(netlab.Poll(20*time.Second, func() error {
			rules, err := ns.Ruleset()
			if err == nil && !sameTables(uncounted(rules), uncounted(want)) {
				err = errors.New("not put right: " + tc.script)
			}
			if count("kube_nft_checks_total found") == before {
				err = errors.Join(err, errors.New("the check has not ended"))
			}
			return err
		}))
		if now := d.reads.Load(); (now > reads) != tc.whole {
			t.Errorf("%s: %d tables were read as a whole, want that: %t", tc.script, now-reads, tc.whole)
		}
		reads = d.reads.Load()
		missed := count("kube_nft_missed_drifts_total IPv4") + count("kube_nft_missed_drifts_total IPv6")
		if missed < float64(i+1) || !c.Repairs().Last[0].Missed {
			t.Errorf("%s: %v were missed, the last: %+v", tc.script, missed, c.Repairs().Last[0])
		}
	}
	if n := log.Count("unnoticed"); n < 7 {
		t.Errorf("it was said %d times:\n%s", n, log)
	}
}

// TestCheckSteps: however many endpoints a Service has, a step looks at no more elements
// than commits may wait for, and none is left out.
func TestCheckSteps(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	d := &deaf{Dataplane: openKernel(t, ns)}
	c := New(testConfig(), d)
	load := &source.Synthetic{Services: 4, Endpoints: 2*lookElements + 10, Affinity: 1, DualStack: true}
	for i := range load.Services {
		c.queue.SetService(load.Service(i))
		for _, s := range load.Slices(i) {
			c.queue.SetSlice(s)
		}
	}
	c.queue.Synced()
	c.mustPass(t)
	reads := d.reads.Load()
	var gone []nft.Element
	all := slices.Collect(c.tables[0].desired.Needed(load.ServiceName(3)))
	for i := range 5 {
		gone = append(gone, all[i*(len(all)-1)/4])
	}
	lab.Must(d.Apply(context.Background(), nft.Change{Schema: c.tables[0].schema, Delta: nft.Delta{Delete: gone}}))
	steps := c.lookThrough(t)
	if n := d.most.Load(); n > lookElements || steps < 2*2*load.Services {
		t.Errorf("%d steps, one of them with %d elements", steps, n)
	}
	if last := c.Repairs().Last; len(last) == 0 || d.reads.Load() != reads {
		t.Errorf("repairs %+v, %d tables were read as a whole", last, d.reads.Load()-reads)
	}
	check(t, c, d.Dataplane.(*kernel.Conn))
}

// TestCheckWary: a table is compared when its constant part looks wrong twice, one time after
// the other, and given up when that does not help; how it looked before does not count.
func TestCheckWary(t *testing.T) {
	lab := netlab.NewT(t)
	d, registry := &deaf{Dataplane: openKernel(t, lab.Namespace("node"))}, prometheus.NewRegistry()
	log, config := &netlab.Output{}, testConfig()
	config.Metrics, config.Logger = registry, slog.New(slog.NewTextHandler(log, nil))
	config.Options = map[nft.Family]nft.Options{nft.IPv4: config.Options[nft.IPv4]}
	c := New(config, d)
	c.queue.Synced()
	c.mustPass(t)
	for _, tc := range []struct {
		name   string
		wrong  string // x is a look at the constant part that finds it wrong; dots follow without end
		reads  int32
		result string
		given  int // up
	}{
		{"never", "", 0, "clean", 0},
		{"once at first", "x", 0, "clean", 0},
		{"once at first, once at last", "x.x", 0, "clean", 0},
		{"twice at first", "xx", 1, "clean", 0},
		{"twice at first, once at last", "xx.x", 1, "clean", 0},
		{"twice at first, twice at last", "xx.xx", 2, "clean", 0},
		{"always", "xxx", 1, "found", 1},
	} {
		looks := 0
		d.wrong = func() bool {
			looks++
			return looks <= len(tc.wrong) && tc.wrong[looks-1] == 'x'
		}
		result := "kube_nft_checks_total " + tc.result
		reads, ended, given := d.reads.Load(), values(t, registry)[result], log.Count("still not as it should be")
		c.lookThrough(t)
		if n := d.reads.Load() - reads; n != tc.reads {
			t.Errorf("%s: compared %d times, want %d", tc.name, n, tc.reads)
		}
		if values(t, registry)[result] != ended+1 {
			t.Errorf("%s: the check has not ended as %s", tc.name, tc.result)
		}
		if n := log.Count("still not as it should be") - given; n != tc.given {
			t.Errorf("%s: given up %d times, want %d:\n%s", tc.name, n, tc.given, log)
		}
	}
}

// lookThrough looks at all tables once, without the pauses, and returns in how many steps.
func (c *Controller) lookThrough(t *testing.T) (steps int) {
	t.Helper()
	c.heal.check.doubt(time.Now())
	for steps = 1; ; steps++ {
		if err := c.lookStep(context.Background()); err != nil {
			t.Fatal(err)
		}
		if !c.heal.check.running {
			return steps
		}
	}
}

// TestLost: when notifications are lost, all is looked at, though no check is asked for.
func TestLost(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	c, d, log, _ := checking(t, ns, 0, &source.Synthetic{Services: 50, Endpoints: 5})
	want, err := ns.Ruleset()
	lab.Must(err)
	lab.Must(ns.NFT("flush map ip kube-nft KUBE-SEP"))
	d.lost <- struct{}{}
	lab.Must(netlab.Poll(10*time.Second, func() error {
		rules, err := ns.Ruleset()
		if err == nil && !sameTables(uncounted(rules), uncounted(want)) {
			err = errors.New("not put right")
		}
		if len(c.Repairs().Last) == 0 { // which is told after it is written
			err = errors.Join(err, errors.New("nothing is told of it"))
		}
		return err
	}))
	if log.Count("were lost") != 1 {
		t.Errorf("%+v\n%s", c.Repairs(), log)
	}
}

// TestCheckBesideChanges: a check of a table that goes on changing finds nothing wrong in
// it, and no change waits for it.
func TestCheckBesideChanges(t *testing.T) {
	t.Parallel()
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	src := feeding{sink: make(chan source.Sink, 1)}
	_, d, log, registry := checking(t, ns, 10*time.Millisecond, src)
	sink := <-src.sink
	step := 0
	for event := range source.Events(5, 1500) {
		event.Apply(sink)
		if step++; step%5 == 0 {
			lab.Must(ns.NFT(fmt.Sprintf("add table ip other-%d", step))) // so that there is a reason to look
		}
	}
	lab.Must(netlab.Poll(20*time.Second, func() error {
		if values(t, registry)["kube_nft_checks_total clean"] < 2 {
			return errors.New("no check has ended")
		}
		return nil
	}))
	if v := values(t, registry); v["kube_nft_checks_total found"] != 0 || v["kube_nft_commits_total error"] != 0 {
		t.Errorf("found %v, failed %v, after %d looks\n%s", v["kube_nft_checks_total found"], v["kube_nft_commits_total error"], d.looks.Load(), log)
	}
}
