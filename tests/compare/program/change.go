// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// changes measures single changes that meet the proxy idle.
func (v *visit) changes(ctx context.Context) error {
	w, err := startWatch(v.api, v.node, 0, v.versions)
	if err != nil {
		return err
	}
	defer w.close()
	first, err := w.change(ctx, false, v.limit) // whatever it had before
	if err != nil {
		return err
	}
	v.pause(ctx, first.packet)
	v.takeLockQuietly()
	for _, kind := range []string{"replace", "add"} {
		if err := v.oneKind(ctx, w, kind); err != nil {
			return err
		}
	}
	v.takeLock("change")
	return v.proxy.Gone()
}

// few is how many samples there are of whoever needs longer than planned.
const few = 3

// oneKind measures changes that give a Service another endpoint, or one more.
func (v *visit) oneKind(ctx context.Context, w *watch, kind string) error {
	row := v.row("change", kind, "first-packet", "s")
	var packets, writes []float64
	var used time.Duration
	for began := time.Now(); v.moreChanges(len(packets), time.Since(began)); {
		before := cpuTime(v.proxy.PID())
		got, err := w.change(ctx, kind == "add", v.changeLimit())
		if errors.Is(err, errUnseen) {
			row.Note = err.Error()
			break
		}
		if err != nil {
			return err
		}
		packets, writes = append(packets, got.packet.Seconds()), append(writes, got.write.Seconds())
		v.pause(ctx, got.packet)
		used += cpuTime(v.proxy.PID()) - before
		if kind == "add" { // the older one goes, so that each change is from one to two
			if _, err := w.write(ctx, *w.version); err != nil {
				return err
			}
			v.pause(ctx, 12*got.packet) // nobody sees when that is done
		}
	}
	v.add(row, packets...)
	if n := len(packets); n > 0 {
		v.add(v.row("change", kind, "api-write", "s"), writes...)
		v.add(v.row("change", kind, "cpu-per-change", "s"), used.Seconds()/float64(n))
	}
	return nil
}

// moreChanges says whether to go on after so many, which took so long.
func (v *visit) moreChanges(n int, took time.Duration) bool {
	switch {
	case n < few:
		return took < v.plan.patience
	case n < v.plan.changes:
		return took < v.plan.changesWithin
	}
	return false
}

// changeLimit is how long a change may take: not much longer than everything.
func (v *visit) changeLimit() time.Duration { return min(v.limit, 3*v.startTook+20*time.Second) }

// pause waits until the proxy is idle again after a change that took so long.
func (v *visit) pause(ctx context.Context, took time.Duration) {
	v.sleep(ctx, v.peer.MinSync+took/10+time.Duration(40+rand.IntN(40))*time.Millisecond)
}
