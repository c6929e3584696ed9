// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"strings"
)

// markdown writes a table, its title, and its notes.
func (t *table) markdown() string {
	if t == nil || len(t.lines) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "**%s.** %s\n\n", t.title, t.caption)
	b.WriteString("| " + strings.Join(t.head, " | ") + " |\n")
	for i := range t.head {
		b.WriteString("|---")
		if i >= t.labels {
			b.WriteString(":")
		}
	}
	b.WriteString("|\n")
	for _, line := range t.lines {
		for _, c := range line {
			b.WriteString("| " + c.markdown())
			if c.text != "" {
				b.WriteString(" ")
			}
		}
		b.WriteString("|\n")
	}
	var notes []string
	for i, note := range t.notes {
		notes = append(notes, fmt.Sprintf("<sup>%d</sup> %s", i+1, note))
	}
	notes = append(notes, t.absent...)
	if len(notes) > 0 {
		b.WriteString("\n" + strings.Join(notes, "<br>\n") + "\n")
	}
	return b.String()
}

func (c cell) markdown() string {
	text := strings.ReplaceAll(c.text, "|", `\|`)
	if c.best {
		text = "**" + text + "**"
	}
	if c.note > 0 {
		text += fmt.Sprintf(" <sup>%d</sup>", c.note)
	}
	return text
}

// Marks around a measured part of a page.
const (
	beginMark = "<!-- compare:begin "
	endMark   = "<!-- compare:end -->"
)

// replaceBlocks puts the measured parts between their marks. Every mark wants a
// part, and what has no mark is left out: the page decides what it shows.
func replaceBlocks(page string, blocks map[string]string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(page, beginMark)
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, rest, _ := strings.Cut(rest, " -->")
		old, after, found := strings.Cut(rest, endMark)
		if !found || strings.Contains(old, beginMark) {
			return "", fmt.Errorf("%s%s -->: %s is missing", beginMark, name, endMark)
		}
		text, known := blocks[name]
		if !known {
			return "", fmt.Errorf("%s%s -->: there is no such part", beginMark, name)
		}
		b.WriteString(beginMark + name + " -->\n")
		if text = strings.TrimSpace(text); text != "" {
			b.WriteString("\n" + text + "\n\n")
		}
		b.WriteString(endMark)
		page = after
	}
}
