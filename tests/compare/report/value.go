// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// scale is a unit as people say it.
type scale struct {
	by   float64
	unit string
}

// scales of the units in result files, from the largest down.
var scales = map[string][]scale{
	"s":     {{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}, {1e-9, "ns"}},
	"ns":    {{1e6, "ms"}, {1e3, "µs"}, {1, "ns"}},
	"B":     {{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}, {1, "B"}},
	"B/s":   {{1e9, "GB/s"}, {1e6, "MB/s"}, {1e3, "kB/s"}, {1, "B/s"}},
	"bit/s": {{1e9, "Gbit/s"}, {1e6, "Mbit/s"}, {1e3, "kbit/s"}, {1, "bit/s"}},
	"1/s":   {{1, "/s"}},
}

// split returns a number with three digits that count, and its unit.
func split(v float64, unit string) (number, word string) {
	all, ok := scales[unit]
	if !ok {
		if unit == "ratio" || unit == "1" {
			unit = ""
		}
		return digits(v), unit
	}
	s := all[len(all)-1]
	for _, s = range all {
		// What would be rounded up to the next unit belongs there.
		if math.Abs(v) >= 0.9995*s.by {
			break
		}
	}
	if v == 0 {
		return "0", ""
	}
	return figures(v / s.by), s.unit
}

// plain is an amount that is a round number, without zeros at its end.
func plain(v float64, unit string) string {
	number, word := split(v, unit)
	return join(trim(number), word)
}

func join(number, word string) string {
	if word == "" || strings.HasPrefix(word, "/") {
		return number + word
	}
	return number + " " + word
}

// figures rounds to three digits, and never writes an exponent.
func figures(v float64) string {
	exponent := math.Floor(math.Log10(math.Abs(v)))
	if math.Abs(v) >= 9.995*math.Pow(10, exponent) {
		exponent++ // rounds up to the next power of ten
	}
	return thousands(strconv.FormatFloat(v, 'f', max(0, 2-int(exponent)), 64))
}

// digits is the same without zeros at the end.
func digits(v float64) string {
	if v == 0 {
		return "0"
	}
	return trim(figures(v))
}

func trim(number string) string {
	if !strings.Contains(number, ".") {
		return number
	}
	return strings.TrimRight(strings.TrimRight(number, "0"), ".")
}

// thousands puts a comma before each group of three digits.
func thousands(text string) string {
	whole, rest, dotted := strings.Cut(text, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if dotted {
		rest = "." + rest
	}
	return sign + whole + rest
}

func count(n int) string { return thousands(strconv.Itoa(n)) }

// percent and times format ratios.
func percent(v float64) string { return digits(100*v) + " %" }
func times(v float64) string   { return strconv.FormatFloat(v, 'f', 2, 64) }

// factor says how many times one thing is another.
func factor(v float64) string {
	switch {
	case v >= 9.95:
		return thousands(strconv.FormatFloat(v, 'f', 0, 64)) + "x"
	case v >= 1.995:
		return strconv.FormatFloat(v, 'f', 1, 64) + "x"
	}
	return strconv.FormatFloat(v, 'f', 2, 64) + "x"
}

// value is what of a row counts.
func (m measure) value(r result.Row) float64 {
	if m.largest {
		return r.Max
	}
	return r.P50
}

// show writes a row's value, and the 99th percentile if asked for.
func (m measure) show(r result.Row) string {
	split := func(v float64) (number, word string) { return split(v, r.Unit) }
	if m.format != nil {
		split = func(v float64) (number, word string) { return m.format(v), "" }
	}
	number, word := split(m.value(r))
	if !m.tail {
		return join(number, word)
	}
	tail, tailWord := split(r.P99)
	if word == tailWord {
		return join(number+" / "+tail, word)
	}
	return join(number, word) + " / " + join(tail, tailWord)
}

// measured reports whether a row has a value. What can be counted at once may have
// no number of samples.
func measured(r result.Row) bool { return r.N > 0 || r.P50 != 0 }

// waited is how long was waited in vain, as notes say it.
var waited = regexp.MustCompile(`^(?:not done|the change is not seen) after (\d[^\s:;,]*(?: [mµn]?s)?)`)

// patience reads that from a note.
func patience(note string) (seconds float64, ok bool) {
	found := waited.FindStringSubmatch(note)
	if found == nil {
		return 0, false
	}
	d, err := time.ParseDuration(strings.ReplaceAll(found[1], " ", ""))
	return d.Seconds(), err == nil
}

// moreIsBetter reports whether more of a unit is better.
func moreIsBetter(unit string) bool { return strings.HasSuffix(unit, "/s") }

func duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}
