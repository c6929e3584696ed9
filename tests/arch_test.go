// SPDX-License-Identifier: Apache-2.0

// Package tests holds what concerns the whole tree.
package tests

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kube-nft/kube-nft/"

// allowed says which of our packages each package may import. Packages under cmd
// and tests may import anything of ours.
var allowed = map[string][]string{
	"nft/wire":             nil,
	"nft":                  {"nft/wire"},
	"nft/trace":            {"nft", "nft/wire"},
	"nft/kernel":           {"nft", "nft/trace", "nft/wire"},
	"nft/conntrack":        {"nft", "nft/wire"},
	"nft/ruleset":          {"nft", "nft/wire"},
	"nft/kubeproxy":        {"nft", "nft/conntrack", "nft/wire"},
	"controller/model":     nil,
	"controller/source":    nil,
	"controller/config":    nil,
	"controller/compile":   {"controller/model", "nft"},
	"controller/load":      {"controller/view", "nft"},
	"controller/view":      {"nft"},
	"controller/explain":   {"controller/compile", "controller/model", "nft"},
	"controller/doctor":    {"nft", "nft/ruleset", "nft/trace"},
	"controller/event":     {"controller/model"},
	"controller/health":    {"controller/model"},
	"controller/localport": {"controller/model"},
	"controller/migrate":   {"controller/config"},
	"controller":           {"controller/compile", "controller/model", "controller/source", "controller/view", "nft"},
}

// forbidden are imports from outside that would break a room's promise.
var forbidden = map[string][]string{
	"nft/wire":             {"net/http", "k8s.io/", "github.com/mdlayher/netlink"},
	"nft":                  {"net/http", "k8s.io/", "github.com/mdlayher/netlink"},
	"nft/trace":            {"net/http", "k8s.io/", "github.com/mdlayher/netlink"},
	"nft/kernel":           {"k8s.io/"},
	"nft/conntrack":        {"k8s.io/"},
	"nft/ruleset":          {"net/http", "k8s.io/"},
	"nft/kubeproxy":        {"k8s.io/"},
	"controller/model":     {"k8s.io/client-go"},
	"controller/compile":   {"k8s.io/client-go", "k8s.io/api/"},
	"controller/view":      {"net/http", "k8s.io/", "github.com/mdlayher/netlink"},
	"controller/explain":   {"net/http", "github.com/mdlayher/netlink", "github.com/vishvananda/netlink", "k8s.io/client-go", "k8s.io/api/"},
	"controller/config":    {"net/http", "github.com/mdlayher/netlink", "k8s.io/client-go", "k8s.io/api/"},
	"controller/doctor":    {"net/http", "github.com/mdlayher/netlink", "k8s.io/"},
	"controller/event":     {"github.com/mdlayher/netlink"},
	"controller/health":    {"github.com/mdlayher/netlink", "k8s.io/client-go", "k8s.io/api/"},
	"controller/localport": {"github.com/mdlayher/netlink", "k8s.io/client-go", "k8s.io/api/"},
	"controller/migrate":   {"github.com/mdlayher/netlink", "k8s.io/client-go", "k8s.io/api/"},
	"controller":           {"net/http", "github.com/mdlayher/netlink", "k8s.io/client-go"},
}

// TestImports keeps the rooms apart: nft knows no Kubernetes, the controller knows
// no socket, and what lies between is pure.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		free := strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "tests")
		ours, known := allowed[pkg]
		if !free && !known {
			t.Errorf("%s: a new package; say in this test what it may import", pkg)
		}
		for _, imported := range fields[1:] {
			local, isOurs := strings.CutPrefix(imported, module)
			if isOurs && !free && !slices.Contains(ours, local) {
				t.Errorf("%s must not import %s", pkg, local)
			}
			for _, f := range forbidden[pkg] {
				if strings.HasPrefix(imported, f) {
					t.Errorf("%s must not import %s", pkg, imported)
				}
			}
		}
	}
}

// TestNoExec keeps other programs out of what runs on a node.
func TestNoExec(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"nft/...", module+"controller/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); slices.Contains(fields[1:], "os/exec") {
			t.Errorf("%s runs other programs", fields[0])
		}
	}
}
