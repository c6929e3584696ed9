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

// TestMain builds outside the namespaces of netlab, where the network is.
func TestMain(m *testing.M) {
	if netlab.Isolated() {
		os.Exit(m.Run())
	}
	if _, err := cluster.Build(context.Background(), slog.Default(), cluster.Etcd, cluster.APIServer, cluster.Proxy); err != nil {
		netlab.GiveUp(err)
	}
	var made string
	if os.Getenv(programEnv) == "" {
		var err error
		if made, err = netlab.GoBuild(context.Background(), "github.com/kube-nft/kube-nft/cmd/kube-nft"); err != nil {
			netlab.GiveUp(err)
		}
		if err := os.Setenv(programEnv, made); err != nil {
			netlab.GiveUp(err)
		}
	}
	code, err := netlab.Isolate(os.Args)
	if made != "" {
		_ = os.RemoveAll(filepath.Dir(made))
	}
	if err != nil {
		netlab.GiveUp(err)
	}
	os.Exit(code)
}
