// SPDX-License-Identifier: Apache-2.0

// Package manifests tests what operators apply: deploy/kustomize, deploy/helm and
// deploy/kube-nft.yaml. Everything decodes strictly into the API's own types, the chart
// gives the objects of each overlay, and a real kube-apiserver takes them. The tools are
// the real ones: kubectl, helm, and for the configuration kube-proxy itself.
package manifests

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

var update = flag.Bool("update", false, "rewrite deploy/kube-nft.yaml")

// What the isolated process is told: where helm is, and a kube-nft that was built for it.
const (
	helmEnv  = "MANIFESTS_TEST_HELM"
	builtEnv = "MANIFESTS_TEST_KUBE_NFT"
)

// TestMain builds outside the namespaces of netlab, where the network is.
func TestMain(m *testing.M) {
	if !netlab.Isolated() {
		_, err := cluster.Build(context.Background(), slog.Default(), cluster.Programs...)
		if err != nil {
			netlab.GiveUp(err)
		}
		if err := buildHelm(); err != nil {
			netlab.GiveUp(err)
		}
		if os.Getenv(programEnv) == "" {
			path, err := netlab.GoBuild(context.Background(), "github.com/kube-nft/kube-nft/cmd/kube-nft")
			if err != nil {
				netlab.GiveUp(err)
			}
			if err := errors.Join(os.Setenv(programEnv, path), os.Setenv(builtEnv, path)); err != nil {
				netlab.GiveUp(err)
			}
		}
	} else if path := os.Getenv(builtEnv); path != "" {
		code := m.Run()
		_ = os.RemoveAll(filepath.Dir(path)) // a temporary directory
		os.Exit(code)
	}
	netlab.Main(m)
}

// buildHelm has the go command build helm, which it keeps in its cache.
func buildHelm() error {
	cmd := exec.Command("go", "tool", "-n", "helm")
	cmd.Dir = "../tools"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	path, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("build helm: %w", err)
	}
	return os.Setenv(helmEnv, strings.TrimSpace(string(path)))
}

// run runs a program with a text as its input, and returns what it says on its
// standard output, and on both if it fails.
func run(t *testing.T, input, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir()) // kubectl and helm keep caches
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// program returns the path of a program that TestMain has built.
func program(t *testing.T, p cluster.Program) string {
	t.Helper()
	paths, err := cluster.Build(t.Context(), slog.Default(), p)
	if err != nil {
		t.Fatal(err)
	}
	return paths[0]
}

// kustomize renders a directory.
func kustomize(t *testing.T, dir string) string {
	t.Helper()
	out, err := run(t, "", program(t, cluster.Kubectl), "kustomize", dir)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// helm renders the chart.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return run(t, "", os.Getenv(helmEnv), append([]string{"template", "kube-nft", chart, "--namespace=kube-system"}, args...)...)
}
