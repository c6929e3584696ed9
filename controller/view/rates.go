// SPDX-License-Identifier: Apache-2.0

package view

import "time"

// Rates are new connections per second of Service ports, from one look at tallies to
// the next. One goroutine owns them. The zero Rates knows none.
type Rates struct {
	at        time.Time
	sums      map[Name]uint64
	perSecond map[Name]float64
	total     float64
}

// Update takes the tallies of all families after a reading. Looks at the same moment
// say nothing of rates and are passed over.
func (r *Rates) Update(now time.Time, tallies ...*Tally) {
	took := now.Sub(r.at).Seconds()
	if !r.at.IsZero() && took <= 0 {
		return
	}
	sums := make(map[Name]uint64, len(r.sums))
	for _, t := range tallies {
		for name, n := range t.Sums() {
			sums[name] += n
		}
	}
	if !r.at.IsZero() {
		r.perSecond, r.total = make(map[Name]float64), 0
		for name, n := range sums {
			// One that was not there before began at zero. One family of a port may go
			// while the other stays: then the sum falls.
			if before := r.sums[name]; n > before {
				r.perSecond[name] = float64(n-before) / took
				r.total += r.perSecond[name]
			}
		}
	}
	r.at, r.sums = now, sums
}

// Known reports whether there have been two readings.
func (r *Rates) Known() bool { return r.perSecond != nil }

// Of is the rate of a Service port.
func (r *Rates) Of(n Name) float64 { return r.perSecond[n] }

// Total is the rate of all together.
func (r *Rates) Total() float64 { return r.total }
