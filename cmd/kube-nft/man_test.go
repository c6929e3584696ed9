// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var update = flag.Bool("update", false, "rewrite docs/man")

const manPages = "../../docs/man"

// TestManPages keeps docs/man what --help says. The pages are made here, so that the
// program on a node need not know how.
func TestManPages(t *testing.T) {
	want := make(map[string]string)
	root := rootCommand()
	root.InitDefaultCompletionCmd()
	addPages(t, root, want)
	if *update {
		writePages(t, want)
	}
	found, err := fs.Glob(os.DirFS(manPages), "*.1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		text, err := os.ReadFile(filepath.Join(manPages, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[name], string(text)); diff != "" {
			t.Errorf("docs/man/%s is not what the command says, `make update` makes it so:\n%s", name, diff)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("docs/man/%s is missing, `make update` makes it", name)
	}
}

// addPages makes the page of a command and of those below. Those for one shell are in
// the page of all shells.
func addPages(t *testing.T, cmd *cobra.Command, pages map[string]string) {
	t.Helper()
	cmd.DisableAutoGenTag = true // the date of today
	header := doc.GenManHeader{Section: "1", Source: "kube-nft", Manual: "kube-nft", Date: new(time.Time)}
	var page bytes.Buffer
	if err := doc.GenMan(cmd, &header, &page); err != nil {
		t.Fatal(err)
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	pages[name] = strings.ReplaceAll(page.String(), `"Jan 0001"`, `""`)
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && cmd.Name() != "completion" {
			addPages(t, c, pages)
		}
	}
}

func writePages(t *testing.T, pages map[string]string) {
	t.Helper()
	if err := os.RemoveAll(manPages); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(manPages, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(manPages, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
