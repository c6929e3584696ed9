// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"
)

// TestFight: repairs are at once, wait longer beside one who goes on, never too long, and
// are at once again afterwards.
func TestFight(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pause  time.Duration // between a repair and the next change
		took   time.Duration // a repair takes
		last   time.Duration // the delay after a minute
		most   int           // repairs in that minute
		spoken bool
	}{
		{"at once", 0, time.Millisecond, briefWait, 310, true},
		{"at once, not cheap", 0, 100 * time.Millisecond, 2 * time.Second, 35, true},
		{"at once, dear", 0, time.Second, lastWait, 10, true},
		{"ten a second", 100 * time.Millisecond, time.Millisecond, briefWait, 210, true},
		{"now and then", 3 * time.Second, time.Millisecond, 0, 20, true},
		{"rarely", 30 * time.Second, time.Millisecond, 0, 2, false},
		{"now and then, dear", 3 * time.Second, time.Second, lastWait, 12, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var f fight
			var delay, busy time.Duration
			spoken, repairs := 0, 0
			now := time.Unix(1_000_000, 0)
			begin := now
			for now.Sub(begin) < time.Minute {
				now = now.Add(tc.pause)
				delay = f.provoked(now)
				now = now.Add(delay + tc.took)
				busy += tc.took
				if repairs++; f.repaired(now, tc.took) {
					spoken++
				}
			}
			if delay != tc.last || repairs > tc.most || (spoken == 1) != tc.spoken || spoken > 1 {
				t.Errorf("%d repairs in a minute, the last after %v, told %d times", repairs, delay, spoken)
			}
			if busy > time.Minute/restful {
				t.Errorf("busy for %v of a minute", busy)
			}
			if f.over(now.Add(peace)) || f.waits(now.Add(3*lastWait)) != 0 {
				t.Errorf("over too early, or a change after a long pause waits")
			}
			if f.over(now.Add(peace+1)) != tc.spoken {
				t.Error("it is not over")
			}
			if d := f.provoked(now.Add(peace + time.Second)); d != 0 || f.told || f.count != 0 {
				t.Errorf("after peace a repair waits for %v, told %t", d, f.told)
			}
		})
	}
}

// TestFightBurst: a script that makes many changes in a second is answered soon after.
func TestFightBurst(t *testing.T) {
	var f fight
	now := time.Unix(1_000_000, 0)
	begin := now
	for now.Sub(begin) < time.Second {
		now = now.Add(f.provoked(now) + time.Millisecond)
		if f.repaired(now, time.Millisecond) {
			t.Error("a burst is told of as one who goes on")
		}
	}
	if end := now.Sub(begin); end > 2*time.Second {
		t.Errorf("a burst of a second is repaired after %v", end)
	}
}
