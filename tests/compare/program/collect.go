// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
)

// collector gathers samples, over all rounds, and tells of each as it comes.
type collector struct {
	log     *slog.Logger
	file    *result.File
	path    string
	began   time.Time
	entries []*entry
}

// entry is a row to be.
type entry struct {
	row     result.Row
	samples []float64
}

// of fills in whose row it is.
func of(p peer.Peer, s shape.Shape, section, variant, metric, unit string) result.Row {
	return result.Row{Section: section, Proxy: p.Name, Shape: s.Name, Services: s.Services, Endpoints: s.Endpoints, Case: variant, Metric: metric, Unit: unit}
}

// add adds samples to those of the same row. A note that says something new is added.
func (c *collector) add(row result.Row, samples ...float64) {
	c.tell(row, samples)
	same := func(e *entry) bool {
		a, b := e.row, row
		a.Note, b.Note = "", ""
		return a == b
	}
	if at := slices.IndexFunc(c.entries, same); at >= 0 {
		e := c.entries[at]
		e.samples = append(e.samples, samples...)
		if row.Note != "" {
			e.row.Note = row.Note
		}
		return
	}
	c.entries = append(c.entries, &entry{row, slices.Clone(samples)})
}

func (c *collector) tell(row result.Row, samples []float64) {
	words := []any{"proxy", row.Proxy, "shape", row.Shape}
	if row.Case != "" {
		words = append(words, "case", row.Case)
	}
	switch len(samples) {
	case 0:
	case 1:
		words = append(words, row.Metric, readable(samples[0], row.Unit))
	default:
		var f result.File
		f.Add(row, samples...)
		r := f.Rows[0]
		words = append(words, row.Metric, fmt.Sprintf("p50 %s p99 %s max %s", readable(r.P50, row.Unit), readable(r.P99, row.Unit), readable(r.Max, row.Unit)), "samples", r.N)
	}
	if row.Note != "" {
		words = append(words, "note", row.Note)
	}
	c.log.Info(row.Section, words...)
}

// readable writes a quantity for those who watch.
func readable(v float64, unit string) string {
	switch unit {
	case "s":
		return time.Duration(v * float64(time.Second)).Round(10 * time.Microsecond).String()
	case "B":
		if v < 1e5 {
			return fmt.Sprintf("%.0f B", v)
		}
		return fmt.Sprintf("%.2f MB", v/1e6)
	case "1/s":
		return fmt.Sprintf("%.0f/s", v)
	case "ratio":
		return fmt.Sprintf("%.2f%%", 100*v)
	}
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// skip notes what is left out, once.
func (c *collector) skip(s result.Skip) {
	if slices.Contains(c.file.Skipped, s) {
		return
	}
	c.log.Warn("skipped", "section", s.Section, "proxy", s.Proxy, "shape", s.Shape, "case", s.Case, "what", s.What, "why", s.Why)
	c.file.Skip(s)
}

// save writes what there is so far: whoever ends a long run keeps it.
func (c *collector) save() error {
	c.file.Rows = nil
	for _, e := range c.entries {
		c.file.Add(e.row, e.samples...)
	}
	c.file.Took = time.Since(c.began).Round(time.Second)
	return c.file.Save(c.path)
}
