// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRefused(t *testing.T) {
	const fragment = "# Why.\nCONFIG_A=y\nCONFIG_B=12\n# CONFIG_C is not set\n# CONFIG_D is not set\n"
	const config = "CONFIG_A=y\nCONFIG_B=8\nCONFIG_C=y\n"
	if got, want := refused(fragment, config), []string{"CONFIG_B=12", "CONFIG_C=n"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFragment(t *testing.T) {
	seen := make(map[string]bool)
	reason := false
	for line := range strings.Lines(fragment) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case name == "":
			reason = false
		case !strings.Contains(name, "CONFIG_"):
			reason = strings.HasPrefix(name, "# ")
		case seen[name]:
			t.Errorf("%s is there twice", name)
		case !reason:
			t.Errorf("%s has no reason above it", name)
		}
		seen[name] = strings.HasPrefix(name, "CONFIG_")
	}
}

func TestPatch(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "offsets.c")
	if err := os.WriteFile(path, []byte("\tSIZE(FP, 2696);\n\tSIZE(BX, 1);\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := patch{"offsets.c", `SIZE\(FP, \d+\);`, "SIZE(FP, 9);"}
	if err := p.apply(dir); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "\tSIZE(FP, 9);\n\tSIZE(BX, 1);\n" {
		t.Errorf("got %q", got)
	}
	if err := (patch{"offsets.c", `SIZE`, ""}).apply(dir); err == nil {
		t.Error("no error from a patch that matches twice")
	}
}

func TestMissing(t *testing.T) {
	got := missing(func(program string) (string, error) {
		if program == "flex" || program == "xz" {
			return "", exec.ErrNotFound
		}
		return "/usr/bin/" + program, nil
	})
	if want := []string{"flex", "xz-utils"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFindNothing(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	if path, err := Find(); !errors.Is(err, ErrNoKernel) {
		t.Errorf("got %q, %v, want %v", path, err, ErrNoKernel)
	}
}
