// SPDX-License-Identifier: Apache-2.0

package report

import (
	"testing"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

func TestShow(t *testing.T) {
	cases := []struct {
		name string
		m    measure
		r    result.Row
		want string
	}{
		{"seconds", measure{}, result.Row{P50: 1.234567, Unit: "s"}, "1.23 s"},
		{"rounded up to the next unit", measure{}, result.Row{P50: 0.99999, Unit: "s"}, "1.00 s"},
		{"rounded up to the next power of ten", measure{}, result.Row{P50: 9.996e-3, Unit: "s"}, "10.0 ms"},
		{"smaller than the smallest unit", measure{}, result.Row{P50: 0.25, Unit: "ns"}, "0.250 ns"},
		{"nothing", measure{}, result.Row{Unit: "B"}, "0"},
		{"bytes", measure{}, result.Row{P50: 123_456, Unit: "B"}, "123 kB"},
		{"very large", measure{}, result.Row{P50: 1.5e13, Unit: "B"}, "15,000 GB"},
		{"a rate", measure{}, result.Row{P50: 12_345, Unit: "1/s"}, "12,345/s"},
		{"a number", measure{}, result.Row{P50: 12, Unit: "1"}, "12"},
		{"an unknown unit", measure{}, result.Row{P50: 12, Unit: "furlong"}, "12 furlong"},
		{"two of one unit", measure{tail: true}, result.Row{P50: 1e-3, P99: 0.25, Unit: "s"}, "1.00 / 250 ms"},
		{"two of two", measure{tail: true}, result.Row{P50: 1e-3, P99: 2.5, Unit: "s"}, "1.00 ms / 2.50 s"},
		{"the largest", measure{largest: true}, result.Row{P50: 1, Max: 3, Unit: "s"}, "3.00 s"},
		{"a ratio", measure{format: times}, result.Row{P50: 1.164, Unit: "ratio"}, "1.16"},
		{"a share", measure{format: percent}, result.Row{P50: 0.0042, Unit: "ratio"}, "0.42 %"},
	}
	for _, tc := range cases {
		if got := tc.m.show(tc.r); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestPatience(t *testing.T) {
	for note, want := range map[string]float64{
		"not done after 600 s":                                  600,
		"not done after 6m0s: 12 Services do not carry packets": 360,
		"the change is not seen after 20s":                      20,
		"not done after a while":                                0,
		"of this, 12ms was the last look at every Service":      0,
	} {
		if got, ok := patience(note); got != want || ok != (want > 0) {
			t.Errorf("%s: %v, %v", note, got, ok)
		}
	}
}
