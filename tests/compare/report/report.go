// SPDX-License-Identifier: Apache-2.0

// Package report turns what was measured into what is read: tables and plots in a
// page of documentation, and a summary in a terminal. The same results make the
// same text.
//
// It measures nothing, and knows of a proxy no more than its name.
package report

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// Results are the result files of a directory together.
type Results struct {
	files []file
	// rows of this machine, and of user-mode Linux on it, whose times mean nothing
	// beside the others: only their ratios do.
	here, uml rows
}

// file is a result file and what it is called.
type file struct {
	name string
	result.File
}

// rows are results of one machine.
type rows struct {
	all     []result.Row
	skipped []result.Skip
}

// Load reads all result files of a directory. Where two have the same row, the one
// that was begun later counts.
func Load(dir string) (*Results, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("%s: no result files (*.json); a run of compare makes them: %w", dir, fs.ErrNotExist)
	}
	var files []file
	var errs []error
	for _, path := range paths {
		f, err := result.Load(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files = append(files, file{strings.TrimSuffix(filepath.Base(path), ".json"), f})
	}
	return merge(files), errors.Join(errs...)
}

func merge(files []file) *Results {
	r := &Results{files: files}
	slices.SortStableFunc(r.files, func(a, b file) int {
		if a.Host.UML != b.Host.UML {
			return map[bool]int{false: -1, true: 1}[a.Host.UML]
		}
		return cmp.Or(a.Started.Compare(b.Started), strings.Compare(a.name, b.name))
	})
	for _, f := range r.files {
		into := &r.here
		if f.Host.UML {
			into = &r.uml
		}
		into.add(f.File)
	}
	return r
}

func (r *rows) add(f result.File) {
	for _, row := range f.Rows {
		same := func(o result.Row) bool { return key(o) == key(row) }
		if i := slices.IndexFunc(r.all, same); i >= 0 {
			r.all[i] = row
		} else {
			r.all = append(r.all, row)
		}
	}
	r.skipped = append(r.skipped, f.Skipped...)
}

// key is what makes two rows the same measurement.
func key(r result.Row) [6]string {
	return [...]string{r.Section, r.Proxy, r.Shape, r.Case, r.Metric, r.Unit}
}

// why finds the reason for which a row is missing. Without a Skip it is what kept the
// same proxy from the start, or from something else of the section.
func (r *rows) why(p place, proxy string) string {
	for _, s := range r.skipped {
		if r.about(s, p, proxy) && (s.Shape == "" || s.Shape == p.shape) && (s.Case == "" || s.Case == p.kase) {
			return s.Why
		}
	}
	for _, related := range []string{p.section, "start"} {
		for _, row := range r.all {
			if row.Section != related || row.Proxy != proxy || row.Shape != p.shape || row.Note == "" || measured(row) {
				continue
			}
			if related != p.section {
				return "its start was " + row.Note
			}
			return row.Note
		}
	}
	return ""
}

// about reports whether a Skip is about a measure and a proxy. An empty field of it
// stands for all; What is free text, unless it is a metric.
func (r *rows) about(s result.Skip, p place, proxy string) bool {
	isMetric := slices.ContainsFunc(r.all, func(row result.Row) bool { return row.Metric == s.What })
	return (s.Section == "" || s.Section == p.section) && (s.Proxy == "" || s.Proxy == proxy) && (!isMetric || s.What == p.metric)
}

// missing finds the reason for which a proxy has no part in a table. One that was left
// out altogether is not named in each of them.
func (r *rows) missing(p place, proxy string) string {
	for _, s := range r.skipped {
		if s.Section != "" && s.Proxy != "" && (s.Shape != "" || s.What != "everything") && r.about(s, p, proxy) {
			return s.Why
		}
	}
	return ""
}

// Write rewrites the measured parts of a page, and the plots in a directory beside
// it that is called like the page.
func (r *Results) Write(page string) error {
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	dir := strings.TrimSuffix(page, filepath.Ext(page))
	drawn, err := r.draw(dir)
	if err != nil {
		return err
	}
	next, err := replaceBlocks(string(text), r.blocks(filepath.Base(dir), drawn))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(next), 0o644)
}

// blocks are the measured parts by name.
func (r *Results) blocks(dir string, drawn map[string]bool) map[string]string {
	blocks := map[string]string{"run": r.header(), "summary": r.summary().markdown(), "skipped": r.skips()}
	seen := make(map[string]bool)
	for _, q := range questions {
		var b strings.Builder
		for _, p := range drawings {
			if p.question == q.name && drawn[p.name] {
				fmt.Fprintf(&b, "![%s](%s/%s.svg)\n\n", p.title, dir, p.name)
			}
		}
		for _, t := range r.tables(q, seen) {
			b.WriteString(t.markdown() + "\n")
		}
		blocks[q.name] = b.String()
	}
	return blocks
}
