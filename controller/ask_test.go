// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// TestAsk: questions are answered while the source is waited for, while commits fail,
// and after; not before Run, nor after it.
func TestAsk(t *testing.T) {
	early, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := New(testConfig(), newFake()).Ask(early, func(Facts) { t.Error("nobody owns the state") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("before Run: %v", err)
	}
	f := newFake()
	c, _, stop := started(t, f)
	status := func() (s Status) {
		t.Helper()
		if err := c.Ask(t.Context(), func(f Facts) { s = f.Status() }); err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := status(); s.Synced || s.Programmed || s.Failing || !s.Changed.IsZero() {
		t.Errorf("before the source has told everything: %+v", s)
	}
	deliver(c.queue, 0)
	f.mu.Lock()
	f.fail = slices.Repeat([]error{errors.New("no buffer space")}, 1000) // until that was seen
	f.mu.Unlock()
	c.queue.Synced()
	eventually(t, func() error {
		if s := status(); !s.Synced || !s.Failing {
			return errors.New("the first commit has not failed")
		}
		return nil
	})
	f.mu.Lock()
	f.fail = nil
	f.mu.Unlock()
	eventually(t, func() error {
		if s := status(); !s.Programmed || s.Failing || s.Services != 1 || s.Changed.IsZero() || s.Tables[0].Elements == 0 {
			return errors.New("not programmed")
		}
		return nil
	})
	err := c.Ask(t.Context(), func(f Facts) {
		if f.Service(oneService.ServiceName(0)).Service == nil || f.Service(oneService.ServiceName(1)) != nil {
			t.Error("other Services are known than were told")
		}
	})
	if err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ask(t.Context(), func(Facts) { t.Error("nobody owns the state any more") }); !errors.Is(err, ErrEnded) {
		t.Errorf("after Run: %v", err)
	}
}

// TestAskUnderLoad: questions that never end do not keep commits from their turn.
func TestAskUnderLoad(t *testing.T) {
	f := newFake()
	c, _, _ := started(t, f)
	c.queue.Synced()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 4 {
		go func() {
			for c.Ask(ctx, func(f Facts) { f.Status() }) == nil {
			}
		}()
	}
	for i := range oneService.Services {
		deliver(c.queue, i)
		eventually(t, func() error { return f.has(oneService.ServiceName(i).String()) })
	}
}
