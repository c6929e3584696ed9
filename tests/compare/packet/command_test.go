// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"log/slog"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
)

func TestMain(m *testing.M) { setup.TestMain(m) }

// TestMeasure measures everything, in a cluster that is as small as can be.
func TestMeasure(t *testing.T) {
	o := options{batch: 2 * burst, flows: 1, Options: setup.Options{
		Out: t.TempDir(), Peers: []string{"kube-nft"}, Shapes: []string{"20x3"}, Rounds: 2, Limit: time.Minute}}
	if err := measure(t.Context(), slog.Default(), o); err != nil {
		t.Fatal(err)
	}
	f, err := result.Load(o.Path("packets"))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Skipped) > 0 {
		t.Errorf("skipped %+v", f.Skipped)
	}
	rows := make(map[[5]string]result.Row)
	for _, r := range f.Rows {
		if r.Shape != "20x3" || r.Services != 20 || r.Endpoints != 60 || r.N == 0 || r.Min <= 0 {
			t.Errorf("row %+v", r)
		}
		rows[[5]string{r.Section, r.Proxy, r.Case, r.Metric, r.Unit}] = r
	}
	for _, c := range []string{"random", "hot", "nodeport", "local", "affinity", "random-featured"} {
		for proxy, units := range map[string][]string{"bare": {"ns"}, "none": {"ns", "ratio"}, "kube-nft": {"ns", "ratio"}} {
			for _, unit := range units {
				for _, metric := range []string{"first-packet", "next-packet"} {
					if _, ok := rows[[5]string{"packet", proxy, c, metric, unit}]; !ok {
						t.Errorf("no row for %s, %s of %s in %s", c, metric, proxy, unit)
					}
				}
			}
		}
	}
	for _, proxy := range []string{"none", "kube-nft"} {
		for _, what := range [][2]string{{"throughput", "B/s"}, {"latency", "s"}, {"latency", "ratio"}} {
			if _, ok := rows[[5]string{"flow", proxy, "", what[0], what[1]}]; !ok {
				t.Errorf("no row for %s of %s", what[0], proxy)
			}
		}
	}
}

func TestFit(t *testing.T) {
	small, err := shape.Parse("1000x10")
	if err != nil {
		t.Fatal(err)
	}
	big, err := shape.Parse("10000x10")
	if err != nil {
		t.Fatal(err)
	}
	var f result.File
	names := func(s shape.Shape, beaten map[string]string) []string {
		return peer.Names(fit([]peer.Peer{{Name: "a"}, {Name: "b", Most: 5000}}, s, beaten, &f))
	}
	if got := names(small, nil); len(got) != 2 || len(f.Skipped) != 0 {
		t.Errorf("%v fit, skipped %+v", got, f.Skipped)
	}
	if got := names(big, map[string]string{"a": "1000x10: too slow"}); len(got) != 0 || len(f.Skipped) != 2 || f.Skipped[0].Why != "1000x10: too slow" {
		t.Errorf("%v fit, skipped %+v", got, f.Skipped)
	}
}
