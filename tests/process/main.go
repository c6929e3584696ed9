// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// programEnv tells the isolated process where the kube-nft to test is; if it is set
// from outside, that one is tested.
const programEnv = "KUBE_NFT_PROGRAM"

// KubeNFT is the path of the kube-nft that Main has built.
func KubeNFT() string { return os.Getenv(programEnv) }

// Main is a TestMain. It builds kube-nft, and the programs of a cluster, outside the
// namespaces of netlab, where the network is, and runs the tests inside.
func Main(m *testing.M, programs ...cluster.Program) {
	if netlab.Isolated() {
		os.Exit(m.Run())
	}
	made, err := build(context.Background(), programs)
	code := 0
	if err == nil {
		code, err = netlab.Isolate(os.Args)
	}
	if made != "" {
		_ = os.RemoveAll(filepath.Dir(made))
	}
	if err != nil {
		netlab.GiveUp(err)
	}
	os.Exit(code)
}

// build returns the kube-nft that it made, for the caller to remove; empty is none.
func build(ctx context.Context, programs []cluster.Program) (made string, err error) {
	if _, err := cluster.Build(ctx, slog.Default(), programs...); err != nil || KubeNFT() != "" {
		return "", err
	}
	made, err = netlab.GoBuild(ctx, "github.com/kube-nft/kube-nft/cmd/kube-nft")
	if err != nil {
		return "", err
	}
	return made, os.Setenv(programEnv, made)
}
