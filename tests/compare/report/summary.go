// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// highlights are the lines of the summary: what matters most, at one shape.
var highlights = []struct {
	measure
	kase string
}{
	{measure{section: "start", metric: "all-carried", what: "process start until every Service carries packets"}, ""},
	{measure{section: "start", metric: "priority-carried", what: "process start until default/kubernetes and DNS do"}, ""},
	{measure{section: "change", metric: "first-packet", what: "endpoint change until a packet meets it,", tail: true}, "replace"},
	{measure{section: "change", metric: "first-packet", what: "endpoint change until a packet meets it,", tail: true}, "add"},
	{measure{section: "churn", metric: "first-packet", what: "the same beside", tail: true}, "100/s"},
	{measure{section: "churn", metric: "first-packet", what: "the same beside", tail: true}, "1000/s"},
	{measure{section: "restart", metric: "first-packet", what: "restart"}, ""},
	{measure{section: "start", metric: "cpu", what: "CPU time of the start"}, ""},
	{measure{section: "change", metric: "cpu-per-change", what: "CPU time of a change,"}, "replace"},
	{measure{section: "idle", metric: "cpu-hour", what: "CPU time of an idle hour"}, ""},
	{measure{section: "memory", metric: "rss-peak", what: "memory, peak of the start"}, ""},
	{measure{section: "start", metric: "lock-hold", what: "longest hold of the nftables lock", largest: true}, ""},
	{measure{section: "packet", metric: "first-packet", unit: "ratio", what: "first packet, one DNAT rule is 1:", format: times}, "random"},
	{measure{section: "packet", metric: "first-packet", unit: "ratio", what: "first packet, one DNAT rule is 1:", format: times}, "hot"},
}

// summary is the one table that matters: of the shape at which most of its lines
// compare kube-nft with others, and of such shapes the one with the most Services.
func (r *Results) summary() *table {
	shape := r.here.shared()
	var places []place
	q := question{}
	for _, h := range highlights {
		p := place{measure: h.measure, kase: h.kase}
		for _, row := range r.here.all {
			if p.fits(row) && row.Case == p.kase && (row.Shape == shape.shape || p.section == "packet" && row.Services == shape.services) && !peerOf(row.Proxy).reference {
				p.shape, p.services, p.endpoints = row.Shape, row.Services, row.Endpoints
				places = append(places, p)
				break
			}
		}
	}
	if len(places) == 0 {
		return &table{}
	}
	title := shape.shapeTitle()
	if shape.services > 0 && shape.endpoints > 0 {
		title = fmt.Sprintf("%s Services, %s endpoints", count(shape.services), count(shape.endpoints))
	}
	t := r.here.table(q, title, places)
	t.dropColumn(1) // the shape, which is in the title
	return t
}

// shared finds the shape of the summary.
func (r *rows) shared() place {
	shapes := make(map[string]place)
	for _, row := range r.all {
		if !peerOf(row.Proxy).reference && row.Section != "flow" {
			shapes[row.Shape] = place{shape: row.Shape, services: row.Services, endpoints: row.Endpoints}
		}
	}
	var best place
	most := -1
	for _, shape := range slices.Sorted(maps.Keys(shapes)) {
		p, n := shapes[shape], 0
		for _, h := range highlights {
			p.measure, p.kase = h.measure, h.kase
			n += r.compared(p)
		}
		if n > most || n == most && comparePlaces(p, best) > 0 {
			best, most = p, n
		}
	}
	return best
}

// compared says how much a line shows of the comparison: kube-nft beside two others
// or more, beside one, or nothing.
func (r *rows) compared(p place) int {
	others := 0
	for _, proxy := range r.proxies() {
		row, ok := r.row(p, proxy)
		_, waited := patience(row.Note)
		shown := ok && (measured(row) || waited)
		switch {
		case proxy == "kube-nft" && !shown:
			return 0
		case rival(proxy) && shown:
			others++
		}
	}
	return min(others, 2)
}

func (t *table) dropColumn(i int) {
	t.head = slices.Delete(t.head, i, i+1)
	for n := range t.lines {
		t.lines[n] = slices.Delete(t.lines[n], i, i+1)
	}
	t.labels--
}

// Print writes the summary for a terminal.
func (r *Results) Print(w io.Writer) error {
	t := r.summary()
	if len(t.lines) == 0 {
		_, err := fmt.Fprintln(w, "Nothing was measured that a summary could show.")
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s\n\n", t.title, t.caption)
	t.text(&b)
	if n := len(r.here.skipped) + len(r.uml.skipped); n > 0 {
		b.WriteString("\n" + strings.ReplaceAll(r.skips(), "\n\n", "\n") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// text writes a table with aligned columns, for a terminal.
func (t *table) text(b *strings.Builder) {
	lines := [][]string{t.head}
	for _, line := range t.lines {
		var texts []string
		for _, c := range line {
			if c.note > 0 {
				c.text += fmt.Sprintf(" [%d]", c.note)
			}
			texts = append(texts, c.text)
		}
		lines = append(lines, texts)
	}
	widths := make([]int, len(t.head))
	for _, line := range lines {
		for i, text := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(text))
		}
	}
	for _, line := range lines {
		var out strings.Builder
		for i, text := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if i < t.labels {
				out.WriteString(text + pad)
			} else {
				out.WriteString("   " + pad + text)
			}
		}
		b.WriteString(strings.TrimRight(out.String(), " ") + "\n")
	}
	for i, note := range t.notes {
		fmt.Fprintf(b, "[%d] %s\n", i+1, note)
	}
	for _, note := range t.absent {
		b.WriteString(note + "\n")
	}
}
