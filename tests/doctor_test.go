// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/controller/doctor"
)

// provokedIn are the files whose tests provoke findings.
var provokedIn = []string{"e2e/doctor_test.go", "e2e/doctor_host_test.go", "rollout/doctor_test.go"}

// notProvoked are the findings that no test can provoke here, and where what they
// rest on is tested instead.
var notProvoked = map[string]string{
	"kernel-lacks": "nft/kernel/preflight_test.go",
}

// TestDoctorPage writes the list of findings in docs/doctor.md from the findings
// themselves, and sees that a test provokes each.
func TestDoctorPage(t *testing.T) {
	const page = "../docs/doctor.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- findings -->\n"), []byte("<!-- end -->\n")
	before, rest, ok := bytes.Cut(text, begin)
	_, after, ok2 := bytes.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no list of findings", page)
	}
	want := slices.Concat(before, begin, findings(t), end, after)
	if *update {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(text, want) {
		t.Errorf("%s is not what the findings say: make update", page)
	}
}

func findings(t *testing.T) []byte {
	provoked := make(map[string][]string)
	for _, file := range provokedIn {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`"(?:error|warning|note) ([a-z-]+)\??"`).FindAllSubmatch(text, -1) {
			id := string(m[1])
			if test := "tests/" + filepath.ToSlash(file); !slices.Contains(provoked[id], test) {
				provoked[id] = append(provoked[id], test)
			}
		}
	}
	var b bytes.Buffer
	for _, k := range doctor.Kinds {
		shown := provoked[k.ID]
		if other := notProvoked[k.ID]; other != "" {
			shown = []string{other}
		}
		if len(shown) == 0 {
			t.Errorf("no test provokes %s", k.ID)
		}
		fmt.Fprintf(&b, "### %s\n\n*%s.* %s.\n\n- Why it matters: %s.\n- Mend: `%s`.\n- Shown by %s.\n\n",
			k.ID, k.Severity, upper(k.Sign), k.Why, k.Mend, strings.Join(shown, ", "))
	}
	return b.Bytes()
}

// upper begins a sentence.
func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
