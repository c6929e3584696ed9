// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Widths of the terminal, in columns.
const (
	defaultWidth = 80
	leastWidth   = 60
	mostWidth    = 110
	mostBar      = 48
	indent       = "   "
)

// screen writes the demo's text: with colours and passing lines of progress on a
// terminal, plain elsewhere.
type screen struct {
	w      io.Writer
	width  int
	colour bool
	live   bool // a terminal, where a line can be overwritten

	mu       sync.Mutex
	headings int
	passing  bool // a line of progress stands there
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w, width: defaultWidth}
	f, ok := w.(*os.File)
	if !ok {
		return s
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return s
	}
	s.live = os.Getenv("TERM") != "dumb"
	s.colour = s.live && os.Getenv("NO_COLOR") == ""
	if size.Col > 0 {
		s.width = min(max(int(size.Col), leastWidth), mostWidth)
	}
	return s
}

// SGR codes: the demo uses the terminal's own colours.
const (
	sgrBold  = "1"
	sgrDim   = "2"
	sgrGood  = "32"
	sgrWarn  = "33"
	sgrReset = "\x1b[0m"
)

// podColours tell pods apart.
var podColours = []string{"36", "32", "35", "34", "33", "31"}

// paint colours text, where that is wanted.
func (s *screen) paint(code, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + sgrReset
}

func (s *screen) bold(text string) string { return s.paint(sgrBold, text) }

// print writes text in place of a passing line.
func (s *screen) print(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprint(s.w, text)
}

// clear removes the passing line.
func (s *screen) clear() {
	if s.passing {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.passing = false
	}
}

func (s *screen) title(text string) { s.print(s.bold(text) + "\n") }

// heading begins a step.
func (s *screen) heading(format string, args ...any) {
	s.headings++
	s.print("\n" + s.bold(fmt.Sprintf("%d  "+format, append([]any{s.headings}, args...)...)) + "\n\n")
}

// line writes an indented line.
func (s *screen) line(format string, args ...any) {
	s.print(strings.TrimRight(indent+fmt.Sprintf(format, args...), " ") + "\n")
}

func (s *screen) good(format string, args ...any) {
	s.line("%s", s.paint(sgrGood, fmt.Sprintf(format, args...)))
}

// note writes what somebody else had to say.
func (s *screen) note(text string) { s.line("%s", s.paint(sgrWarn, text)) }

// progress writes a line that the next one overwrites; nothing removes it. It is
// for terminals alone.
func (s *screen) progress(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	if text := fmt.Sprintf(format, args...); s.live && text != "" {
		fmt.Fprint(s.w, indent+s.paint(sgrDim, text+" …"))
		s.passing = true
	}
}

// nftList is how nft indents elements below the first one, for tabs of eight.
const nftList = "\t\t\t     "

// verbatim writes the output of nft with narrower tabs.
func (s *screen) verbatim(text string) {
	for line := range strings.Lines(text) {
		line = strings.Replace(line, nftList, "\t\t"+pad("", len("elements = { ")), 1)
		s.print(strings.TrimRight(indent+strings.ReplaceAll(line, "\t", "    "), " \n") + "\n")
	}
}

// columns writes rows with aligned columns; a row may be short.
func (s *screen) columns(gap string, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString(gap)
			}
			b.WriteString(pad(cell, widths[i]))
		}
		text := strings.TrimRight(b.String(), " ")
		if n == 0 && isHeader(row) {
			text = s.paint(sgrDim, text)
		}
		s.line("%s", text)
	}
}

// isHeader reports whether a row names its columns.
func isHeader(row []string) bool { return row[0] != "" && row[0] == strings.ToUpper(row[0]) }

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// share is what a pod had of all answers, in a form to be aligned.
func share(part, all int) string {
	if all == 0 {
		return "    – %"
	}
	return fmt.Sprintf("%5.1f %%", 100*float64(part)/float64(all))
}

// bars shows how answers spread over pods, one bar each.
func (s *screen) bars(pods []*demoPod, answers map[string]int) {
	all, most := total(answers)
	label := labelWidth(pods)
	width := min(s.width-len(indent)-label-len("    100.0 %   000,000"), mostBar)
	for i, p := range pods {
		n := answers[p.name]
		s.line("%s  %s  %s  %7s", pad(p.name, label), s.podBar(i, fractionOf(n, most), width), share(n, all), count(n))
	}
}

// sideBySide shows several distributions over the same pods, all on one scale.
func (s *screen) sideBySide(titles []string, pods []*demoPod, answers []map[string]int) {
	label, number := labelWidth(pods), len(" 100.0 %")
	width := (s.width-len(indent)-label)/len(titles) - number - 3
	scale := 0.0
	head := pad("", label)
	for i, a := range answers {
		all, most := total(a)
		scale = max(scale, fractionOf(most, all))
		head += "   " + pad(titles[i], width+number)
	}
	s.line("%s", s.paint(sgrDim, strings.TrimRight(head, " ")))
	for i, p := range pods {
		row := pad(p.name, label)
		for _, a := range answers {
			all, _ := total(a)
			part := fractionOf(a[p.name], all)
			row += "   " + s.podBar(i, part/max(scale, 1e-9), width) + " " + share(a[p.name], all)
		}
		s.line("%s", row)
	}
}

func (s *screen) podBar(i int, fraction float64, width int) string {
	return s.paint(podColours[i%len(podColours)], bar(fraction, width))
}

// eighths of a column, from none to seven.
var eighths = []string{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"}

// bar draws a fraction of width columns, and pads it to the full width. What is
// more than nothing is seen.
func bar(fraction float64, width int) string {
	if width <= 0 {
		return ""
	}
	if math.IsNaN(fraction) || fraction <= 0 {
		return strings.Repeat(" ", width)
	}
	n := max(1, int(math.Round(min(fraction, 1)*float64(width)*8)))
	return pad(strings.Repeat("█", n/8)+eighths[n%8], width)
}

func fractionOf(part, all int) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// total sums up counters and finds the greatest.
func total(counters map[string]int) (sum, most int) {
	for _, n := range counters {
		sum += n
		most = max(most, n)
	}
	return sum, most
}

func labelWidth(pods []*demoPod) int {
	width := 0
	for _, p := range pods {
		width = max(width, utf8.RuneCountInString(p.name))
	}
	return width
}

// count writes a number with commas between thousands.
func count(n int) string {
	digits := strconv.Itoa(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// duration writes a time as people say it, with two digits that matter.
func duration(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 0.1:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}
