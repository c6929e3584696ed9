// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Answers waits until exactly these servers answer; with none, until nobody does:
// then either every client is told so, or all are left waiting, as at an address
// that is no Service's any more. It asks now and then only: what the kernel tracks of
// a question outlives it by minutes, and one that comes from the same port again is
// treated as the first one was.
func (t *T) Answers(within time.Duration, from *Namespace, network string, to netip.AddrPort, servers ...string) {
	t.tb.Helper()
	deadline, tick := time.After(within), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		err := from.AnsweredBy(network, to, servers...)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.tb.Fatalf("after %v: %v", within, err)
		}
	}
}

// AnsweredBy returns an error unless exactly these servers answer; see T.Answers.
func (n *Namespace) AnsweredBy(network string, to netip.AddrPort, servers ...string) error {
	ctx := context.Background()
	enough := max(24, 20*len(servers)) // for each of them to answer, but for one time in millions
	var opts []Option
	if len(servers) == 0 {
		enough, opts = 8, []Option{Timeout(200 * time.Millisecond)}
	}
	ask := func() (Answer, error) { return n.Ask(ctx, network, to, opts...) }
	if a, err := ask(); (err == nil) != (len(servers) > 0) {
		return fmt.Errorf("%s %s from %s: answer by %q, %v, want [%s]", network, to, n.Name(), a.Server, err, strings.Join(servers, " "))
	}
	tally := Many(ctx, enough, 2, func(int) (Answer, error) { return ask() })
	told := tally.Errors[ErrUnreachable] + tally.Errors[ErrRefused] + tally.Errors[ErrFiltered]
	alike := told == enough || tally.Errors[ErrTimeout] == enough
	got, want := slices.Sorted(maps.Keys(tally.Servers)), slices.Sorted(slices.Values(servers))
	if !slices.Equal(got, want) || (len(servers) > 0 && tally.Failed() > 0) || (len(servers) == 0 && !alike) {
		return fmt.Errorf("%s %s from %s: %v, want answers by [%s]", network, to, n.Name(), tally, strings.Join(servers, " "))
	}
	return nil
}
