// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/behaviour.md")

const behaviourHead = `# What each kind of Service does

This page is made from the tests: each row has a number, a test that shows it names
it, and ` + "`make update`" + ` writes the page anew from tests/rows_test.go. Tests without a
package are in tests/e2e, and send packets. kube-proxy's nftables mode is the model
where a row does not say otherwise; [conformance.md](conformance.md) lists where the two
differ.

| row | subject | what happens | state | shown by |
|---|---|---|---|---|
`

// shownIn are the packages whose tests show rows.
var shownIn = []string{"e2e", "apiserver", "conformance", "../controller", "../controller/compile", "../controller/health", "../controller/model", "../controller/source", "../nft/kernel", "../nft/conntrack"}

// TestBehaviour makes docs/behaviour.md from the rows and the tests that name them.
func TestBehaviour(t *testing.T) {
	shown := make(map[string][]string)
	for _, dir := range shownIn {
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("no tests in %s, %v", dir, err)
		}
		for _, file := range files {
			collectRows(t, file, shown)
		}
	}
	page := bytes.NewBufferString(behaviourHead)
	for _, r := range rows {
		state, tests := "carried", shown[r.id]
		delete(shown, r.id)
		switch {
		case r.missing != "":
			state, tests = "not yet: "+r.missing, nil
		case len(tests) == 0:
			t.Errorf("no test names %s", r.id)
		}
		fmt.Fprintf(page, "| %s | %s | %s | %s | %s |\n", r.id, r.subject, r.text, state, strings.Join(tests, ", "))
	}
	for id, tests := range shown {
		t.Errorf("%v name %s, which is not in tests/rows_test.go", tests, id)
	}
	const file = "../docs/behaviour.md"
	if *update {
		if err := os.WriteFile(file, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, page.Bytes()) {
		t.Errorf("%s is not what the tests show: run make update", file)
	}
}

var rowID = regexp.MustCompile(`\b(A[1-4]\.[0-9]+|F[0-9]+)\b`)

// collectRows notes which tests of a file name which rows, in their comments or in
// the names of their cases.
func collectRows(t *testing.T, file string, shown map[string][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" {
			continue
		}
		begin := f.Pos()
		if f.Doc != nil {
			begin = f.Doc.Pos()
		}
		name := f.Name.Name
		if dir := filepath.Base(filepath.Dir(file)); dir != "e2e" {
			name = dir + "." + name
		}
		for _, id := range rowID.FindAllString(string(text[fset.Position(begin).Offset:fset.Position(f.End()).Offset]), -1) {
			if !slices.Contains(shown[id], name) {
				shown[id] = append(shown[id], name)
			}
		}
	}
}
