// SPDX-License-Identifier: Apache-2.0

// Package rollout tests kube-nft on the nodes of a cluster that has all of its
// control plane: a real kube-apiserver, whose EndpointSlices a real
// kube-controller-manager writes, Services that kubectl makes, and pods that are Pod
// objects. kube-nft has the ServiceAccount and the ClusterRole of deploy/, and the
// nodes are handed to it from a real kube-proxy and back, under traffic.
//
// The test is the kubelet: it writes the status of Node and Pod objects and starts
// the servers behind them. It writes no EndpointSlice.
package rollout

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
	if _, err := cluster.Build(context.Background(), slog.Default(), cluster.Programs...); err != nil {
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

// programOf returns the path of a program that TestMain has built.
func programOf(t *testing.T, p cluster.Program) string {
	t.Helper()
	paths, err := cluster.Build(t.Context(), slog.Default(), p)
	if err != nil {
		t.Fatal(err)
	}
	return paths[0]
}
