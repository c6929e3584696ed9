// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// visit is one proxy on a node of its own, from its start to the removal of its tables.
type visit struct {
	*collector
	plan  plan
	limit time.Duration
	peer  peer.Peer
	shape shape.Shape
	api   *site.API
	node  *site.Node
	proxy *site.Running
	crowd *crowd
	watch *watch
	lock  *lockProber // nil if there is no such lock
	// versions are what the API server has, of all visits.
	versions *versions
	// startTook is how long it was until all Services carried packets.
	startTook time.Duration
}

// errSlow: the proxy took longer than the limit.
var errSlow = errors.New("slower than the limit")

// run measures all that is planned. What goes wrong with the proxy ends the visit, and
// is noted; errors are those of everybody else.
func (v *visit) run(ctx context.Context) (err error) {
	v.log.Info("starting", "proxy", v.peer.Name, "shape", v.shape.Name)
	if v.node, err = v.api.NewNode(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.node.Close()) }()
	if v.crowd, err = newCrowd(v.node, v.shape); err != nil {
		return err
	}
	defer v.crowd.close()
	if v.peer.Netfilter() {
		if v.lock, err = probeLock(v.node.Router); err != nil {
			return err
		}
		defer v.lock.close()
	}
	for _, step := range []struct {
		section string
		wanted  func() bool // by then
		f       func(context.Context) error
	}{
		{"start", func() bool { return true }, v.start},
		{"idle", func() bool { return v.plan.idle > 0 }, v.idle},
		{"change", func() bool { return v.plan.changes > 0 }, v.changes},
		{"churn", func() bool { return v.plan.churn > 0 }, v.churn},
		{"restart", func() bool { return v.plan.restart }, v.restart},
		{"memory", func() bool { return true }, v.tables},
	} {
		if !step.wanted() {
			continue
		}
		if err := step.f(ctx); err != nil {
			return v.explain(ctx, step.section, err)
		}
	}
	return nil
}

// explain notes an error that is about the proxy, and returns any other.
func (v *visit) explain(ctx context.Context, section string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errSlow) {
		return err // it has been noted
	}
	v.skip(result.Skip{Section: section, Proxy: v.peer.Name, Shape: v.shape.Name, What: "this and what follows", Why: err.Error()})
	return nil
}

func (v *visit) row(section, variant, metric, unit string) result.Row {
	return of(v.peer, v.shape, section, variant, metric, unit)
}

// start starts the proxy and waits until all Services carry packets.
func (v *visit) start(ctx context.Context) (err error) {
	if v.proxy, err = v.node.Start(ctx, v.peer); err != nil {
		return err
	}
	memory := sampleMemory(v.proxy.PID())
	got, err := v.crowd.await(ctx, v.limit, v.proxy.Gone)
	cpu := cpuTime(v.proxy.PID())
	if err != nil {
		memory.end()
		return err
	}
	v.startTook = time.Since(v.proxy.Began)
	note := got.notDone(v.limit)
	if !got.priority.IsZero() {
		v.add(v.row("start", "", "priority-carried", "s"), got.priority.Sub(v.proxy.Began).Seconds())
	}
	if note == "" {
		v.startTook = got.all.Sub(v.proxy.Began)
		row := v.row("start", "", "all-carried", "s")
		if got.sweep > v.startTook/20 {
			row.Note = fmt.Sprintf("of this, %v was the last look at every Service", got.sweep.Round(time.Millisecond))
		}
		v.add(row, v.startTook.Seconds())
	} else {
		row := v.row("start", "", "all-carried", "s")
		row.Note = note
		v.add(row)
	}
	v.add(v.row("start", "", "cpu", "s"), cpu.Seconds())
	v.settle(ctx)
	peak := v.row("memory", "", "rss-peak", "B")
	if note != "" {
		peak.Note = note
	}
	v.add(peak, float64(memory.end()))
	v.takeLock("start")
	if note != "" {
		return errSlow
	}
	v.add(v.row("memory", "", "rss-steady", "B"), float64(resident(v.proxy.PID())))
	if seconds, ok := programming(v.node); ok {
		v.add(v.row("start", "", "programming", "s"), seconds)
	}
	v.plan = v.plan.without(v.startTook)
	return v.proxy.Gone()
}

// settle waits for what a proxy does after its first pass.
func (v *visit) settle(ctx context.Context) {
	v.sleep(ctx, v.peer.MinSync+time.Second)
}

// sleep returns early if ctx ends.
func (v *visit) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// takeLock adds what the lock's prober has found since the last time.
func (v *visit) takeLock(section string) {
	if v.lock == nil {
		v.skip(result.Skip{Section: section, Proxy: v.peer.Name, What: "lock-hold", Why: "its tables are not nftables', and behind no such lock"})
		return
	}
	seconds, err := v.lock.take()
	if err != nil {
		v.skip(result.Skip{Section: section, Proxy: v.peer.Name, Shape: v.shape.Name, What: "lock-hold", Why: err.Error()})
		return
	}
	if len(seconds) > 0 {
		v.add(v.row(section, "", "lock-hold", "s"), seconds...)
	}
}

// idle measures what the proxy does when there is nothing to do.
func (v *visit) idle(ctx context.Context) error {
	before, began := cpuTime(v.proxy.PID()), time.Now()
	v.sleep(ctx, v.plan.idle)
	used, took := cpuTime(v.proxy.PID())-before, time.Since(began)
	row := v.row("idle", "", "cpu-hour", "s")
	row.Note = fmt.Sprintf("extrapolated from %v", took.Round(time.Second))
	v.add(row, used.Seconds()*time.Hour.Seconds()/took.Seconds())
	v.add(v.row("memory", "", "rss-idle", "B"), float64(resident(v.proxy.PID())))
	return v.proxy.Gone()
}

// changes measures single changes that meet the proxy idle.
func (v *visit) changes(ctx context.Context) error {
	var err error
	if v.watch, err = startWatch(v.api, v.node, 0, v.versions); err != nil {
		return err
	}
	defer v.watch.close()
	if _, err := v.watch.write(ctx, *v.watch.version); err != nil {
		return err
	}
	v.takeLockQuietly()
	for _, kind := range []string{"replace", "add"} {
		if err := v.oneKind(ctx, kind); err != nil {
			return err
		}
	}
	v.takeLock("change")
	return v.proxy.Gone()
}

// takeLockQuietly forgets what the lock's prober has found while nothing was measured.
func (v *visit) takeLockQuietly() {
	if v.lock != nil {
		_, _ = v.lock.take() // an error stays and is told later
	}
}

// changeLimit is how long a change may take: not much longer than everything.
func (v *visit) changeLimit() time.Duration { return min(v.limit, 3*v.startTook+20*time.Second) }

// few is how many samples there are of whoever needs longer than planned.
const few = 3

func (v *visit) oneKind(ctx context.Context, kind string) error {
	var packets, writes []float64
	var used time.Duration
	note := ""
	v.pause(ctx, 0)
	for began := time.Now(); len(packets) < v.plan.changes && (len(packets) < few || time.Since(began) < v.plan.changesWithin); {
		before := cpuTime(v.proxy.PID())
		got, err := v.watch.change(ctx, kind == "add", v.changeLimit())
		if errors.Is(err, errUnseen) {
			note = err.Error()
			break
		}
		if err != nil {
			return err
		}
		packets, writes = append(packets, got.packet.Seconds()), append(writes, got.write.Seconds())
		v.pause(ctx, got.packet)
		used += cpuTime(v.proxy.PID()) - before
		if kind == "add" { // the first goes, so that each change is from one to two
			if _, err := v.watch.write(ctx, *v.watch.version); err != nil {
				return err
			}
			v.pause(ctx, got.packet)
		}
		if time.Since(began) > v.plan.patience {
			break
		}
	}
	row := v.row("change", kind, "first-packet", "s")
	row.Note = note
	v.add(row, packets...)
	v.add(v.row("change", kind, "api-write", "s"), writes...)
	if len(packets) > 0 {
		v.add(v.row("change", kind, "cpu-per-change", "s"), used.Seconds()/float64(len(packets)))
	}
	return nil
}

// pause waits until the proxy is idle again after a change that took so long.
func (v *visit) pause(ctx context.Context, took time.Duration) {
	v.sleep(ctx, v.peer.MinSync+took/10+time.Duration(40+rand.IntN(40))*time.Millisecond)
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
	for _, rate := range v.plan.rates {
		if err := v.churnAt(ctx, c, w, rate); err != nil {
			return err
		}
	}
	v.takeLock("churn")
	return v.proxy.Gone()
}

func (v *visit) churnAt(ctx context.Context, c *churn, w *watch, rate int) error {
	variant := fmt.Sprintf("%d/s", rate)
	writing, cancel := context.WithTimeout(ctx, v.plan.churn)
	defer cancel()
	type outcome struct {
		written int
		err     error
	}
	ended := make(chan outcome, 1)
	before, began := cpuTime(v.proxy.PID()), time.Now()
	go func() {
		n, err := c.run(writing, rate)
		ended <- outcome{n, err}
	}()
	var packets, writes []float64
	note := ""
	for writing.Err() == nil && note == "" {
		got, err := w.change(ctx, false, v.changeLimit())
		switch {
		case errors.Is(err, errUnseen):
			note = err.Error()
		case err != nil:
			return err
		default:
			packets, writes = append(packets, got.packet.Seconds()), append(writes, got.write.Seconds())
		}
		v.sleep(writing, time.Duration(10+rand.IntN(20))*time.Millisecond)
	}
	got := <-ended
	used, took := cpuTime(v.proxy.PID())-before, time.Since(began)
	if got.err != nil {
		return got.err
	}
	row := v.row("churn", variant, "first-packet", "s")
	row.Note = note
	v.add(row, packets...)
	v.add(v.row("churn", variant, "api-write", "s"), writes...)
	v.add(v.row("churn", variant, "rate", "1/s"), float64(got.written)/v.plan.churn.Seconds())
	v.add(v.row("churn", variant, "cpu-per-change", "s"), used.Seconds()/float64(max(1, got.written+len(packets))))
	v.add(v.row("churn", variant, "cpu-share", "ratio"), used.Seconds()/took.Seconds())
	v.settle(ctx)
	return nil
}
