// SPDX-License-Identifier: Apache-2.0

// Package apiserver tests the kube-nft program against a real kube-apiserver, with
// real packets: what is written through the API is asked for by clients in network
// namespaces, and what the two say to each other is read from the server's audit
// log. kube-nft acts as a user that may do no more than it needs.
//
// Nothing here knows what the rules look like. Where a test must show that
// something was not written, it listens to the kernel's own notifications.
package apiserver

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// programEnv tells the isolated process where the kube-nft to test is.
const programEnv = "APISERVER_TEST_KUBE_NFT"

// TestMain builds outside the namespaces of netlab, where the network is.
func TestMain(m *testing.M) {
	if netlab.Isolated() {
		code := m.Run()
		_ = os.RemoveAll(filepath.Dir(os.Getenv(programEnv))) // a temporary directory
		os.Exit(code)
	}
	if err := build(context.Background()); err != nil {
		verdict, code := "SKIP", 0
		if os.Getenv("CI") != "" {
			verdict, code = "FAIL", 1
		}
		fmt.Fprintf(os.Stderr, "%s: no test runs: %v\n", verdict, err)
		os.Exit(code)
	}
	netlab.Main(m)
}

// build makes everything that the tests run.
func build(ctx context.Context) error {
	if _, err := cluster.Build(ctx, slog.Default(), cluster.Etcd, cluster.APIServer); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kube-nft-apiserver-")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "kube-nft")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/kube-nft/kube-nft/cmd/kube-nft")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return fmt.Errorf("build kube-nft: %w\n%s", err, out)
	}
	return os.Setenv(programEnv, path)
}
