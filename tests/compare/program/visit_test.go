// SPDX-License-Identifier: Apache-2.0

package program

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestVisit measures everything, in a cluster that is as small as can be.
func TestVisit(t *testing.T) {
	s, err := shape.Parse("20x3")
	if err != nil {
		t.Fatal(err)
	}
	api, err := site.StartAPI(t.Context(), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := api.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := api.Load(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c := &collector{log: slog.Default(), file: &result.File{}, path: filepath.Join(t.TempDir(), "program.json"), began: time.Now()}
	v := &visit{
		collector: c, limit: time.Minute, peer: peer.All[0], shape: s, api: api, versions: new(versions),
		plan: plan{
			idle: 100 * time.Millisecond, changes: 5, changesWithin: time.Minute, patience: time.Minute,
			rates: []int{50}, churn: 500 * time.Millisecond, restart: true, trace: true, traceIdle: 100 * time.Millisecond,
		},
	}
	if _, err := v.all(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	got, err := result.Load(c.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, skip := range got.Skipped {
		t.Logf("skipped: %+v", skip)
	}
	for _, want := range []struct{ section, variant, metric string }{
		{"start", "", "all-carried"}, {"start", "", "priority-carried"}, {"start", "", "cpu"}, {"start", "", "lock-hold"},
		{"start", "", "programming"}, {"idle", "", "cpu-hour"}, {"memory", "", "rss-peak"}, {"memory", "", "kernel"},
		{"change", "replace", "first-packet"}, {"change", "add", "first-packet"}, {"change", "replace", "cpu-per-change"},
		{"churn", "50/s", "first-packet"}, {"churn", "50/s", "rate"}, {"restart", "", "first-packet"},
	} {
		r := find(got, want.section, want.variant, want.metric)
		if r.N == 0 || r.Note != "" && want.metric == "first-packet" {
			t.Errorf("%v: %+v", want, r)
		}
	}
	if r := find(got, "restart", "", "lost"); r.N != 1 || r.Max != 0 {
		t.Errorf("questions were lost over a restart: %+v", r)
	}
	if r := find(got, "change", "replace", "first-packet"); r.N != 5 || r.Min <= 0 || r.Max > 30 {
		t.Errorf("changes: %+v", r)
	}
}

func find(f result.File, section, variant, metric string) result.Row {
	for _, r := range f.Rows {
		if r.Section == section && r.Case == variant && r.Metric == metric {
			return r
		}
	}
	return result.Row{}
}
