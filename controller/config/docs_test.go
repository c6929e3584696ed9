// SPDX-License-Identifier: Apache-2.0

package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table in docs/configuration.md")

// TestDocs keeps the table of fields in docs/configuration.md.
func TestDocs(t *testing.T) {
	const path, begin, end = "../../docs/configuration.md", "<!-- fields -->\n", "<!-- end of fields -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", path)
	}
	want := before + begin + table() + end + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(text) {
		t.Errorf("%s is not what fields.go says: make update", path)
	}
}

// table is fields in Markdown.
func table() string {
	usual := leaves(New())
	var b strings.Builder
	b.WriteString("| field | default | here |\n|---|---|---|\n")
	for _, f := range fields {
		value := usual[f.path]
		if value != "" {
			value = "`" + value + "`"
		}
		here := f.does
		switch {
		case f.does == "":
			here = "no effect: " + f.not
		case f.counts != nil:
			here += "; no effect if " + f.not
		case f.not != "":
			here += "; any other: no effect, " + f.not
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.path, value, here)
	}
	return b.String()
}
