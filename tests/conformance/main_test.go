// SPDX-License-Identifier: Apache-2.0

// Package conformance compares kube-nft with the real kube-proxy in nftables mode.
//
// One real kube-apiserver serves two sites: the same small network twice, with the
// same addresses, whose node kube-nft serves in one and kube-proxy in the other. Both
// read the same objects. The same clients ask the same questions in both, and who
// answered, whom they saw, or how it failed must be the same.
//
// Nothing here says what the right answer is, and nothing knows what the rules look
// like. Where the two may differ, and why, is in one list: see differences.
package conformance

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

// programEnv tells the isolated process where the kube-nft to test is; if it is set
// from outside, that one is tested.
const programEnv = "KUBE_NFT_PROGRAM"

// TestMain builds outside the namespaces of netlab, where the network is.
func TestMain(m *testing.M) {
	if netlab.Isolated() {
		os.Exit(m.Run())
	}
	if _, err := cluster.Build(context.Background(), slog.Default(), cluster.Etcd, cluster.APIServer, cluster.Proxy); err != nil {
		giveUp(err)
	}
	var made string
	if os.Getenv(programEnv) == "" {
		var err error
		if made, err = build(context.Background()); err != nil {
			giveUp(err)
		}
	}
	code, err := netlab.Isolate(os.Args)
	if made != "" {
		_ = os.RemoveAll(made)
	}
	if err != nil {
		giveUp(err)
	}
	os.Exit(code)
}

// giveUp ends the process because no test can run, which is a failure in CI.
func giveUp(err error) {
	verdict, code := "SKIP", 0
	if os.Getenv("CI") != "" {
		verdict, code = "FAIL", 1
	}
	fmt.Fprintf(os.Stderr, "%s: no test runs: %v\n", verdict, err)
	os.Exit(code)
}

// build makes kube-nft in a directory of its own.
func build(ctx context.Context) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "kube-nft-conformance-"); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "kube-nft")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/kube-nft/kube-nft/cmd/kube-nft")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build kube-nft: %w\n%s", err, out)
	}
	return dir, os.Setenv(programEnv, path)
}
