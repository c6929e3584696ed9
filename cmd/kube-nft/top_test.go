// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
)

// TestFit: however narrow a terminal is, columns and the name fit it, and rates stay
// as long as there is a column.
func TestFit(t *testing.T) {
	for width := range 300 {
		columns, name := fit(width)
		used := name
		for _, c := range columns {
			used += c.width + 2
		}
		if used != width || name < 0 {
			t.Errorf("width %d: %d columns and a name of %d take %d", width, len(columns), name, used)
		}
		if len(columns) > 0 && columns[0].title != "NEW/S" {
			t.Errorf("width %d: the first column is %s", width, columns[0].title)
		}
	}
	if columns, _ := fit(132); len(columns) != len(topColumns) {
		t.Errorf("a terminal of 132 has %d columns of %d", len(columns), len(topColumns))
	}
}

func TestTopWords(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.04: "0.0", 0.5: "0.5", 9.94: "9.9", 9.96: "10", 99_999: "99999", 123_456: "123k", 12_345_678: "12M"} {
		if got := perSecond(n); got != want {
			t.Errorf("%v a second: %s, want %s", n, got, want)
		}
	}
	for _, tt := range []struct {
		s     string
		width int
		want  string
	}{{"default/web", 20, "default/web"}, {"default/web", 8, "default~"}, {"abc", 1, "a"}, {"abc", 0, ""}, {"größer", 4, "grö~"}} {
		if got := cut(tt.s, tt.width); got != tt.want {
			t.Errorf("%q in %d: %q, want %q", tt.s, tt.width, got, tt.want)
		}
	}
	values := []float32{0, 1, 4, 8}
	if got := spark(values, false); got != " ▂▅█" {
		t.Errorf("trend %q", got)
	}
	if got := spark(values, true); got != " .=#" {
		t.Errorf("trend in ASCII %q", got)
	}
	if got := spark(make([]float32, 3), false); got != "   " {
		t.Errorf("trend of nothing %q", got)
	}
}
