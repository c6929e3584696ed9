// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"time"
)

// fight decides how long a repair waits. Alone it is made at once. Where somebody goes
// on changing what was put right, each repair waits twice as long as the one before, but
// no longer than is needed that the two of them cannot keep a processor busy: while it
// waits packets may miss.
type fight struct {
	delay time.Duration // that the repair to come waits, or the last one has
	took  time.Duration // how long the last repair took
	ended time.Time     // when
	began time.Time     // the first repair after peace
	count int           // repairs since
	told  bool          // that it goes on
}

const (
	firstWait = 10 * time.Millisecond
	// The delay ends to grow at so many times what a repair takes: 5 % of a processor.
	thrifty = 20
	// It does so between these: not sooner, because whoever changes something does more
	// than we know; and well below what health allows a change to wait.
	briefWait = 200 * time.Millisecond
	lastWait  = 10 * time.Second
	// calm is after how long a change has nothing to do with the last repair.
	calm = time.Second
	// A repair costs no more than one part in restful of the time until the next one.
	restful = 4
	// peace is after how long without a repair it is over.
	peace = 10 * time.Minute
	// So few repairs, each of a change that came by itself, are no fight, however dear.
	few = 3
	// Who has had to be answered so often, for so long, goes on.
	goesOn      = 6
	goesOnSince = 5 * time.Second
)

// provoked says that something was changed which is to be put right, and returns how
// long that waits.
func (f *fight) provoked(now time.Time) time.Duration {
	since := now.Sub(f.ended)
	if f.count > 0 && since > peace {
		*f = fight{}
	}
	if f.count == 0 {
		f.began = now
	}
	switch {
	case f.count == 0, f.count < few && since > calm, since > max(calm, 2*f.delay, restful*f.took):
		f.delay = 0
	default:
		f.delay = min(max(firstWait, 2*f.delay, restful*f.took), max(briefWait, thrifty*f.took), lastWait)
	}
	return f.delay
}

// repaired says that a repair ended, after so long. It reports whether it is time to
// tell that somebody goes on; it is told once.
func (f *fight) repaired(now time.Time, took time.Duration) bool {
	f.ended, f.took = now, took
	f.count++
	if f.told || f.count < goesOn || now.Sub(f.began) < goesOnSince {
		return false
	}
	f.told = true
	return true
}

// waits is how long a repair would wait that became necessary now, if the last one had
// to wait already.
func (f fight) waits(now time.Time) time.Duration {
	if f.delay == 0 {
		return 0
	}
	return f.provoked(now)
}

// over reports whether a fight that was told of has ended.
func (f *fight) over(now time.Time) bool {
	return f.told && now.Sub(f.ended) > peace
}
