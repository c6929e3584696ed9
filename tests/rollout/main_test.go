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
	"log/slog"
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/process"
)

func TestMain(m *testing.M) { process.Main(m, cluster.Programs...) }

// programOf returns the path of a program that TestMain has built.
func programOf(t *testing.T, p cluster.Program) string {
	t.Helper()
	paths, err := cluster.Build(t.Context(), slog.Default(), p)
	if err != nil {
		t.Fatal(err)
	}
	return paths[0]
}
