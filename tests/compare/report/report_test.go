// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"html"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func load(t *testing.T) *Results {
	t.Helper()
	r, err := Load("testdata/results")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestWrite writes a whole page; twice, since what is there must not matter.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page.md")
	text, err := os.ReadFile("testdata/page.md")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(page, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := load(t).Write(page); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, page, "testdata/want.md")
}

// TestSVG: pictures are the same each time, small, well-formed, and name everybody.
func TestSVG(t *testing.T) {
	dir := t.TempDir()
	r := load(t)
	drawn, err := r.draw(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range drawings {
		if !drawn[p.name] {
			if p.name != "churn" {
				t.Errorf("%s is missing", p.name)
			}
			continue
		}
		svg, err := os.ReadFile(filepath.Join(dir, p.name+".svg"))
		if err != nil {
			t.Fatal(err)
		}
		picture, _ := r.picture(p)
		if again, err := picture.svg(); err != nil || !bytes.Equal(svg, again) {
			t.Errorf("%s: another time it is another one (%v)", p.name, err)
		}
		if len(svg) > 40_000 {
			t.Errorf("%s: %d bytes are too many", p.name, len(svg))
		}
		if err := wellFormed(svg); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
		for _, c := range picture.curves {
			if !strings.Contains(string(svg), ">"+html.EscapeString(picture.name(c))+"<") {
				t.Errorf("%s: the curve of %s has no name", p.name, c.proxy)
			}
		}
	}
}

func wellFormed(text []byte) error {
	d := xml.NewDecoder(bytes.NewReader(text))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestPrint(t *testing.T) {
	var b bytes.Buffer
	if err := load(t).Print(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "summary.txt")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	golden(t, path, "testdata/summary.txt")
}

func TestNothing(t *testing.T) {
	if _, err := Load(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no results: %v", err)
	}
	var b strings.Builder
	if err := new(Results).Print(&b); err != nil || !strings.HasPrefix(b.String(), "Nothing") {
		t.Errorf("%q, %v", b.String(), err)
	}
	for name, text := range new(Results).blocks("x", nil) {
		if text != "" {
			t.Errorf("%s of nothing: %q", name, text)
		}
	}
}

func golden(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(want, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expected, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, expected) {
		t.Errorf("differs from %s; -update rewrites it:\n%s", want, got)
	}
}
