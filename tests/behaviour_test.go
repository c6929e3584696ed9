// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// elsewhere are rows that other tests show than those in tests/e2e.
var elsewhere = map[string]string{
	"A2.5":  "tests/e2e, with A3.2",
	"A2.7":  "tests/e2e, with A2.6",
	"A2.11": "tests/apiserver, TestSync",
	"A3.7":  "controller/model, TestFromService",
	"A3.13": "tests/e2e, TestKill and TestPolicyFlips",
	"A4.7":  "nft/conntrack, TestPersist",
	"A4.8":  "nft/kernel, TestGolden: there is no such rule",
}

// TestBehaviour keeps docs/behaviour.md and the tests in step: a row that tests
// name is in the list, and one that the list calls carried has a test.
func TestBehaviour(t *testing.T) {
	list, err := os.ReadFile("../docs/behaviour.md")
	if err != nil {
		t.Fatal(err)
	}
	state := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^\| ([AF][0-9.]+) \|.*\| ([a-z ]+) \|$`).FindAllStringSubmatch(string(list), -1) {
		state[m[1]] = m[2]
	}
	if len(state) < 40 {
		t.Fatalf("only %d rows", len(state))
	}
	files, err := filepath.Glob("e2e/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range regexp.MustCompile(`\b(A[1-4]\.[0-9]+|F[0-9]+)\b`).FindAllString(string(text), -1) {
			named[row] = true
			if state[row] == "" {
				t.Errorf("%s names %s, which is not in docs/behaviour.md", file, row)
			}
		}
	}
	for row, s := range state {
		if s == "carried" && !named[row] && elsewhere[row] == "" {
			t.Errorf("%s is called carried, but no test names it", row)
		}
	}
}
