// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// place is a line of a table: what was measured, where.
type place struct {
	measure
	kase, shape         string
	services, endpoints int
	common              string // what all values are to be read with
}

func (m measure) fits(r result.Row) bool {
	return r.Section == m.section && r.Metric == m.metric && (m.unit == "" || m.unit == r.Unit)
}

// row finds what a proxy did at a place. What needs no Services is measured once,
// for all shapes and cases.
func (r *rows) row(p place, proxy string) (result.Row, bool) {
	var found result.Row
	best := 0
	for _, row := range r.all {
		if row.Proxy != proxy || !p.fits(row) {
			continue
		}
		score := 0
		switch {
		case row.Shape == p.shape && row.Case == p.kase:
			score = 3
		case !peerOf(proxy).reference:
		case row.Shape == "" && row.Case == p.kase:
			score = 2
		case row.Shape == "" && row.Case == "":
			score = 1
		}
		if score > best {
			found, best = row, score
		}
	}
	return found, best > 0
}

// places are the lines of a question, in the order that they are read in. A place
// where nothing but a reference was measured is none, nor is one that is for all.
func (r *rows) places(q question) []place {
	var all []place
	for _, m := range q.measures {
		byCase := make(map[string]map[string]place)
		for _, row := range r.all {
			if !m.fits(row) || peerOf(row.Proxy).reference && row.Shape == "" {
				continue
			}
			if byCase[row.Case] == nil {
				byCase[row.Case] = make(map[string]place)
			}
			byCase[row.Case][row.Shape] = place{measure: m, kase: row.Case, shape: row.Shape, services: row.Services, endpoints: row.Endpoints}
		}
		for _, kase := range slices.SortedFunc(maps.Keys(byCase), compareCases) {
			all = append(all, slices.SortedFunc(maps.Values(byCase[kase]), comparePlaces)...)
		}
	}
	return all
}

func comparePlaces(a, b place) int {
	return cmp.Or(a.services-b.services, a.endpoints-b.endpoints, strings.Compare(a.shape, b.shape))
}

// compareCases orders cases: those with a place, then rates from the lowest up.
func compareCases(a, b string) int {
	index := func(s string) int {
		if i := slices.Index(cases, s); i >= 0 {
			return i
		}
		return len(cases)
	}
	return cmp.Or(index(a)-index(b), cmp.Compare(rate(a), rate(b)), strings.Compare(a, b))
}

// rate is the number that a case like "1000/s" begins with, or 0.
func rate(kase string) (n float64) {
	_, _ = fmt.Sscanf(kase, "%g/s", &n)
	return n
}

// shapeTitle is a shape as people write it.
func (p place) shapeTitle() string {
	var services, each int
	if n, _ := fmt.Sscanf(p.shape, "%dx%d", &services, &each); n == 2 && p.shape == fmt.Sprintf("%dx%d", services, each) {
		if p.endpoints != 0 && p.endpoints != services*each {
			return fmt.Sprintf("%s (%s endpoints)", count(services), count(p.endpoints))
		}
		return count(services) + " x " + count(each)
	}
	if p.services > 0 && p.shape != "" && p.endpoints > 0 {
		return fmt.Sprintf("%s / %s", count(p.services), count(p.endpoints))
	}
	if p.shape == "" && p.services > 0 {
		return count(p.services)
	}
	return p.shape
}

// tables answers a question. It notes which rows it has shown.
func (r *Results) tables(q question, seen map[string]bool) []*table {
	if q.name == "other" {
		return r.others(seen)
	}
	src := &r.here
	if q.uml {
		src = &r.uml
	}
	places := src.places(q)
	for _, row := range src.all {
		for _, m := range q.measures {
			if m.fits(row) {
				seen[fmt.Sprint(q.uml, key(row))] = true
			}
		}
	}
	if len(places) == 0 {
		return nil
	}
	return []*table{src.table(q, q.title, places)}
}

// others are what no question has asked for, so that nothing measured is lost.
func (r *Results) others(seen map[string]bool) []*table {
	var all []*table
	for _, uml := range []bool{false, true} {
		src, q := &r.here, question{}
		title := "What else was measured"
		if uml {
			src, title = &r.uml, "What else was measured in user-mode Linux"
		}
		for _, row := range src.all {
			m := measure{section: row.Section, metric: row.Metric, unit: row.Unit, what: strings.ReplaceAll(row.Section+", "+row.Metric, "-", " "), tail: row.N >= 100, neutral: true}
			known := slices.ContainsFunc(q.measures, func(o measure) bool { return o.fits(row) })
			if !seen[fmt.Sprint(uml, key(row))] && !known {
				q.measures = append(q.measures, m)
			}
		}
		slices.SortFunc(q.measures, func(a, b measure) int {
			return cmp.Or(strings.Compare(a.what, b.what), strings.Compare(a.unit, b.unit))
		})
		if places := src.places(q); len(places) > 0 {
			all = append(all, src.table(q, title, places))
		}
	}
	return all
}

// label is what stands before a line's values: what, and the shape.
func (q question) label(p place, places []place) (what, where string) {
	what = p.what
	if p.kase != "" {
		what = strings.TrimSpace(what + " " + caseTitle(p.kase))
	}
	where = p.shapeTitle()
	if q.services && p.services > 0 {
		where = count(p.services)
		for _, o := range places {
			if o.services == p.services && o.shape != p.shape {
				where = p.shapeTitle()
			}
		}
	}
	return what, where
}
