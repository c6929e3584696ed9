// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"fmt"
	"time"
)

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
	v.addStart(got)
	used, peak := v.row("start", "", "cpu", "s"), v.row("memory", "", "rss-peak", "B")
	used.Note, peak.Note = got.notDone(v.limit), got.notDone(v.limit)
	v.add(used, cpu.Seconds())
	v.settle(ctx)
	v.add(peak, float64(memory.end()))
	v.takeLock("start")
	if got.left > 0 {
		return errSlow
	}
	v.add(v.row("memory", "", "rss-steady", "B"), float64(resident(v.proxy.PID())))
	if seconds, ok := programming(v.node); ok {
		v.add(v.row("start", "", "programming", "s"), seconds)
	}
	v.plan = v.plan.without(v.startTook)
	return v.proxy.Gone()
}

// addStart adds how soon Services carried packets, as far as they did.
func (v *visit) addStart(got carried) {
	if !got.priority.IsZero() {
		v.add(v.row("start", "", "priority-carried", "s"), got.priority.Sub(v.proxy.Began).Seconds())
	}
	row := v.row("start", "", "all-carried", "s")
	if got.left > 0 {
		v.startTook = v.limit
		row.Note = got.notDone(v.limit)
		v.add(row)
		return
	}
	v.startTook = got.all.Sub(v.proxy.Began)
	if got.sweep > v.startTook/20 {
		row.Note = fmt.Sprintf("of this, %v was the last look at every Service", got.sweep.Round(time.Millisecond))
	}
	v.add(row, v.startTook.Seconds())
}

// settle waits for what a proxy does after its first pass.
func (v *visit) settle(ctx context.Context) {
	v.sleep(ctx, v.peer.MinSync+time.Second)
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
