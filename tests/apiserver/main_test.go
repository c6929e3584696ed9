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
	"log/slog"
	"os"
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
	_, err := cluster.Build(context.Background(), slog.Default(), cluster.Etcd, cluster.APIServer)
	if err != nil {
		netlab.GiveUp(err)
	}
	path, err := netlab.GoBuild(context.Background(), "github.com/kube-nft/kube-nft/cmd/kube-nft")
	if err != nil {
		netlab.GiveUp(err)
	}
	if err := os.Setenv(programEnv, path); err != nil {
		netlab.GiveUp(err)
	}
	netlab.Main(m)
}
