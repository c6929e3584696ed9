// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// table is a table that is ready to be written down.
type table struct {
	title, caption string
	head           []string
	lines          [][]cell
	absent         []string // who has no column, and why
	notes          []string
	labels         int // columns before the values
}

// cell is a text, and what there is to say about it.
type cell struct {
	text string
	best bool
	note int // of the table's notes, from 1
}

func (r *rows) table(q question, title string, places []place) *table {
	t := &table{title: title, caption: r.caption(places)}
	columns := r.columns(t, places)
	whats := false
	for _, p := range places {
		what, _ := q.label(p, places)
		whats = whats || what != ""
	}
	t.labels = 1
	shape := "Services x endpoints of each"
	if q.services {
		shape = "Services"
	}
	t.head = []string{shape}
	if whats {
		t.labels = 2
		t.head = []string{"", shape}
	}
	for _, c := range columns {
		t.head = append(t.head, peerOf(c).title)
	}
	compared := slices.ContainsFunc(places, func(p place) bool { return !p.neutral }) &&
		slices.ContainsFunc(columns, func(c string) bool { return peerOf(c).ours }) &&
		slices.ContainsFunc(columns, rival)
	if compared {
		t.head = append(t.head, "times better")
	}
	before, said := "", ""
	for _, p := range places {
		what, where := q.label(p, places)
		line := []cell{{text: where}}
		if whats {
			line = []cell{{text: what}, {text: where}}
			if what == before && len(t.lines) > 0 {
				line[0].text = ""
			}
			before = what
		}
		if p.common = r.common(p, columns); p.common != "" && p.common != said {
			line[0].note = t.note(sentence(p.common))
		}
		said = p.common
		line = append(line, r.values(t, p, columns)...)
		if compared {
			line = append(line, cell{text: r.advantage(p, columns)})
		}
		t.lines = append(t.lines, line)
	}
	return t
}

func rival(proxy string) bool { p := peerOf(proxy); return !p.ours && !p.reference }

// columns are the proxies that have a value, or that were waited for in vain. Of
// the others the table says why they are not there.
func (r *rows) columns(t *table, places []place) []string {
	shown := make(map[string]bool)
	absent := make(map[string]string)
	for _, p := range places {
		for _, proxy := range r.proxies() {
			row, ok := r.row(p, proxy)
			_, bound := patience(row.Note)
			switch {
			case ok && peerOf(proxy).reference && p.format != nil && row.P50 == 1:
				// The measure of all others, compared with itself.
			case ok && (measured(row) || bound):
				shown[proxy] = true
			case ok && row.Note != "":
				absent[proxy] = row.Note
			default:
				if why := r.missing(p, proxy); why != "" {
					absent[proxy] = why
				}
			}
		}
	}
	for _, proxy := range slices.SortedFunc(maps.Keys(absent), comparePeers) {
		if !shown[proxy] {
			t.absent = append(t.absent, fmt.Sprintf("%s is not here: %s.", peerOf(proxy).title, strings.TrimSuffix(absent[proxy], ".")))
		}
	}
	return slices.SortedFunc(maps.Keys(shown), comparePeers)
}

// proxies are all that have a row or were skipped.
func (r *rows) proxies() []string {
	all := make(map[string]bool)
	for _, row := range r.all {
		all[row.Proxy] = true
	}
	for _, s := range r.skipped {
		if s.Proxy != "" {
			all[s.Proxy] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// values are the cells of a line; the best of those that are proxies stands out.
func (r *rows) values(t *table, p place, columns []string) []cell {
	cells := make([]cell, len(columns))
	var best []int
	var bestRow result.Row
	proxies := 0
	for i, proxy := range columns {
		row, ok := r.row(p, proxy)
		cells[i] = r.cell(t, p, proxy, row, ok)
		if !ok || !measured(row) || peerOf(proxy).reference {
			continue
		}
		proxies++
		same := len(best) > 0 && p.shown(row) == p.shown(bestRow)
		switch {
		case same:
			best = append(best, i)
		case len(best) == 0 || p.surpasses(row, bestRow):
			best, bestRow = []int{i}, row
		}
	}
	if p.neutral || len(best) == proxies && proxies > 1 {
		return cells // nobody is better
	}
	if proxies > 1 || slices.ContainsFunc(cells, func(c cell) bool { return strings.HasPrefix(c.text, "> ") }) {
		for _, i := range best {
			cells[i].best = true
		}
	}
	return cells
}

// shown is the median as it is written.
func (p place) shown(r result.Row) string {
	m := p.measure
	m.tail = false
	return m.show(r)
}

// surpasses reports whether one value is better than another.
func (m measure) surpasses(a, b result.Row) bool {
	if moreIsBetter(a.Unit) {
		return m.value(a) > m.value(b)
	}
	return m.value(a) < m.value(b)
}

func (r *rows) cell(t *table, p place, proxy string, row result.Row, ok bool) cell {
	var c cell
	why := row.Note
	switch seconds, bound := patience(row.Note); {
	case ok && measured(row):
		c.text = p.show(row)
		if row.Note == p.common {
			why = ""
		}
	case ok && bound:
		c.text = "> " + plain(seconds, "s")
	default:
		c.text = "–"
		if why == "" {
			why = r.why(p, proxy)
		}
	}
	if why != "" {
		c.note = t.note(sentence(why))
	}
	return c
}

// note returns the number of a note, which is there once.
func (t *table) note(text string) int {
	if i := slices.Index(t.notes, text); i >= 0 {
		return i + 1
	}
	t.notes = append(t.notes, text)
	return len(t.notes)
}

func sentence(s string) string {
	first, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(s[n:], ".") + "."
}

// common is a note that all values of a line have alike: it is said once.
func (r *rows) common(p place, columns []string) string {
	note, n := "", 0
	for _, proxy := range columns {
		row, ok := r.row(p, proxy)
		if !ok || !measured(row) || peerOf(proxy).reference && row.Note == "" {
			continue
		}
		if row.Note == "" || n > 0 && row.Note != note {
			return ""
		}
		note = row.Note
		n++
	}
	return note
}

// advantage is how many times better kube-nft is than the best other proxy; below
// 1 it is worse.
func (r *rows) advantage(p place, columns []string) string {
	ours, ok := r.row(p, "kube-nft")
	if p.neutral {
		return ""
	}
	if !ok || p.value(ours) == 0 {
		return "–"
	}
	var best, bound float64 // of bounds, which nobody was done within, the least
	var bestRow result.Row
	for _, proxy := range columns {
		row, ok := r.row(p, proxy)
		if !ok || !rival(proxy) {
			continue
		}
		if measured(row) && (best == 0 || p.surpasses(row, bestRow)) {
			best, bestRow = p.value(row), row
		}
		if seconds, ok := patience(row.Note); ok && !measured(row) && (bound == 0 || seconds < bound) {
			bound = seconds
		}
	}
	switch {
	case best == 0 && bound > 0:
		return "> " + factor(bound/p.value(ours))
	case best == 0:
		return "–"
	case moreIsBetter(ours.Unit):
		return factor(p.value(ours) / best)
	}
	return factor(best / p.value(ours))
}

// caption says what the numbers are.
func (r *rows) caption(places []place) string {
	least, most, tail := 0, 0, false
	var more, less bool // is better
	for _, p := range places {
		tail = tail || p.tail
		for _, row := range r.all {
			if !p.fits(row) || row.Shape != p.shape {
				continue
			}
			more = more || !p.neutral && moreIsBetter(row.Unit)
			less = less || !p.neutral && !moreIsBetter(row.Unit)
			if row.N == 0 || p.largest {
				continue
			}
			if least == 0 || row.N < least {
				least = row.N
			}
			most = max(most, row.N)
		}
	}
	text := "Medians"
	if tail {
		text += " / 99th percentiles"
	}
	switch {
	case most <= 1:
		text = "Measured once"
	case least == 1:
		text += " of up to " + count(most)
	case least == most:
		text += " of " + count(most)
	default:
		text += fmt.Sprintf(" of %s to %s", count(least), count(most))
	}
	switch {
	case more && less:
		text += "; more is better, but for times"
	case more:
		text += "; more is better"
	case less:
		text += "; less is better"
	}
	return text + "."
}
