// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// errOther is the class of errors that have none.
var errOther = errors.New("other")

// Tally is the outcome of many questions.
type Tally struct {
	Servers map[string]int     // answers by server
	Sources map[netip.Addr]int // answers by the source address that the server saw
	Errors  map[error]int      // failures by sentinel; those without one are Other
	Other   []error            // failures without a sentinel
	Took    time.Duration      // for all of them together
}

// Many calls f n times, with i from 0 to n-1, at most parallel at a time, and
// counts the outcomes. It stops early when the context is cancelled.
func Many(ctx context.Context, n, parallel int, f func(i int) (Answer, error)) Tally {
	t := Tally{
		Servers: make(map[string]int),
		Sources: make(map[netip.Addr]int),
		Errors:  make(map[error]int),
	}
	begin := time.Now()
	var (
		mu   sync.Mutex
		wg   sync.WaitGroup
		next atomic.Int64
	)
	for range min(parallel, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				a, err := f(i)
				mu.Lock()
				t.add(a, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Took = time.Since(begin)
	return t
}

func (t *Tally) add(a Answer, err error) {
	if err == nil {
		t.Servers[a.Server]++
		t.Sources[a.Source.Addr()]++
		return
	}
	class := classify(err)
	if class == nil {
		t.Other = append(t.Other, err)
		return
	}
	t.Errors[class]++
}

// Answered returns the number of answers.
func (t Tally) Answered() int { return sum(t.Servers) }

// Failed returns the number of failures.
func (t Tally) Failed() int { return sum(t.Errors) + len(t.Other) }

// Rate returns the outcomes per second.
func (t Tally) Rate() float64 {
	return float64(t.Answered()+t.Failed()) / max(t.Took.Seconds(), 1e-9)
}

// String returns the tally on one line, in a fixed order, with the first of
// the errors that have no class.
func (t Tally) String() string {
	errs := make(map[string]int, len(t.Errors)+1)
	for err, n := range t.Errors {
		errs[err.Error()] = n
	}
	if len(t.Other) > 0 {
		errs[errOther.Error()] = len(t.Other)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d answered%s", t.Answered(), list(t.Servers, strings.Compare))
	if len(t.Sources) > 0 {
		fmt.Fprintf(&b, " from%s", list(t.Sources, netip.Addr.Compare))
	}
	fmt.Fprintf(&b, ", %d failed%s", t.Failed(), list(errs, strings.Compare))
	fmt.Fprintf(&b, " in %v (%.0f/s)", t.Took.Round(time.Millisecond), t.Rate())
	if len(t.Other) > 0 {
		fmt.Fprintf(&b, ": %v", t.Other[0])
	}
	return b.String()
}

func sum[K comparable](m map[K]int) int {
	total := 0
	for _, n := range m {
		total += n
	}
	return total
}

// list formats counters in the order of their keys.
func list[K comparable](m map[K]int, compare func(a, b K) int) string {
	parts := make([]string, 0, len(m))
	for _, k := range slices.SortedFunc(maps.Keys(m), compare) {
		parts = append(parts, fmt.Sprintf("%v=%d", k, m[k]))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, " ") + ")"
}
