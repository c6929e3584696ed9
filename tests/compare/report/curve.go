// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// drawing is a picture of a question's answer: what it costs, by size.
type drawing struct {
	name, question string
	title          string
	measure
	kase string
	// rates puts changes a second on the x axis, where there are too few sizes.
	rates  bool
	uml    bool
	linear bool // y, from 0
}

var drawings = []drawing{
	{name: "start", question: "start", title: "Process start until every Service carries packets",
		measure: measure{section: "start", metric: "all-carried"}},
	{name: "change", question: "change", title: "One endpoint change until a packet reaches the new endpoint",
		measure: measure{section: "change", metric: "first-packet", tail: true}, kase: "replace"},
	{name: "churn", question: "change", title: "One endpoint change beside 1,000 others a second",
		measure: measure{section: "churn", metric: "first-packet", tail: true}, kase: "1000/s"},
	{name: "churn-rate", question: "change", title: "One endpoint change beside others", rates: true,
		measure: measure{section: "churn", metric: "first-packet", tail: true}},
	{name: "memory", question: "memory", title: "Peak memory of the process and what it starts",
		measure: measure{section: "memory", metric: "rss-peak"}},
	{name: "packet", question: "packet", title: "First packet of a connection, all Services at random", linear: true,
		measure: measure{section: "packet", metric: "first-packet", unit: "ratio", format: times}, kase: "random"},
	{name: "ipvs", question: "ipvs", title: "First packet in user-mode Linux, all Services at random", linear: true,
		measure: measure{section: "packet", metric: "first-packet", unit: "ratio", format: times}, kase: "random", uml: true},
}

// point is a value at a size. An open one is a bound: nobody waited longer.
type point struct {
	x, y, tail float64
	open       bool
}

// curve is what one proxy costs.
type curve struct {
	proxy  string
	points []point
}

// picture is a plot with its data.
type picture struct {
	drawing
	subtitle string
	unit     string
	curves   []curve
}

// picture collects a plot's data. There is none if it has no curve, only points.
func (r *Results) picture(p drawing) (picture, bool) {
	src := &r.here
	if p.uml {
		src = &r.uml
	}
	out := picture{drawing: p}
	each, rates := src.family(p)
	byProxy := make(map[string][]point)
	for _, row := range src.all {
		if !p.fits(row) || peerOf(row.Proxy).reference || !p.rates && (row.Case != p.kase || !sameFamily(row, each)) {
			continue
		}
		if p.rates && row.Shape != rates {
			continue
		}
		at := point{x: float64(row.Services), y: p.value(row), tail: row.P99}
		if p.rates {
			at.x = rate(row.Case)
		}
		if !measured(row) {
			seconds, waited := patience(row.Note)
			if !waited {
				continue
			}
			at.y, at.tail, at.open = seconds, seconds, true
		}
		if at.x <= 0 || at.y <= 0 {
			continue
		}
		out.unit = row.Unit
		byProxy[row.Proxy] = append(byProxy[row.Proxy], at)
	}
	sizes := make(map[float64]bool)
	for _, proxy := range slices.SortedFunc(maps.Keys(byProxy), comparePeers) {
		points := byProxy[proxy]
		slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
		points = slices.CompactFunc(points, func(a, b point) bool { return a.x == b.x })
		out.curves = append(out.curves, curve{proxy, points})
		for _, at := range points {
			sizes[at.x] = true
		}
	}
	switch {
	case p.rates:
		out.subtitle = place{shape: rates}.shapeTitle() + " endpoints"
	case each > 0 && p.section != "packet":
		out.subtitle = fmt.Sprintf("%s endpoints of each Service", count(each))
	}
	if p.linear {
		out.subtitle = "times what one hand-written DNAT rule costs"
	}
	if p.tail {
		out.subtitle += "; line: median, dashed: 99th percentile"
	}
	return out, len(sizes) > 1
}

// family is how many endpoints each Service has in the shapes that make a curve:
// those that differ in nothing but size. For a curve over rates it is one shape.
func (r *rows) family(p drawing) (each int, shape string) {
	shapes := make(map[int]map[int]bool)
	rates := make(map[string]map[string]bool)
	for _, row := range r.all {
		if !p.fits(row) || peerOf(row.Proxy).reference {
			continue
		}
		if rates[row.Shape] == nil {
			rates[row.Shape] = make(map[string]bool)
		}
		rates[row.Shape][row.Case] = true
		if row.Services == 0 || row.Case != p.kase {
			continue
		}
		n := row.Endpoints / row.Services
		if shapes[n] == nil {
			shapes[n] = make(map[int]bool)
		}
		shapes[n][row.Services] = true
	}
	for _, n := range slices.Sorted(maps.Keys(shapes)) {
		if len(shapes[n]) >= len(shapes[each]) {
			each = n
		}
	}
	for _, s := range slices.Sorted(maps.Keys(rates)) {
		if len(rates[s]) > len(rates[shape]) {
			shape = s
		}
	}
	return each, shape
}

// sameFamily reports whether a row belongs on the curve of a number of endpoints.
// What a packet pays does not depend on it.
func sameFamily(row result.Row, each int) bool {
	return row.Section == "packet" || row.Services > 0 && row.Endpoints/row.Services == each
}

// draw writes the plots to a directory, and takes those away that there is nothing
// for. It returns the names of those that are there.
func (r *Results) draw(dir string) (map[string]bool, error) {
	drawn := make(map[string]bool)
	for _, p := range drawings {
		path := filepath.Join(dir, p.name+".svg")
		picture, ok := r.picture(p)
		if !ok || p.name == "churn-rate" && drawn["churn"] {
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				return nil, err
			}
			continue
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		svg, err := picture.svg()
		if err != nil {
			return nil, fmt.Errorf("plot %s: %w", p.name, err)
		}
		if err := os.WriteFile(path, svg, 0o644); err != nil {
			return nil, err
		}
		drawn[p.name] = true
	}
	return drawn, nil
}
