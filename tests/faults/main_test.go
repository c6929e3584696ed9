// SPDX-License-Identifier: Apache-2.0

// Package faults has things go wrong around the running program, for real: the kernel
// refuses, its answers get lost, neighbours are loud, tables are full, the API server
// misbehaves, clocks jump, and the process is killed at every step. Packets travel all
// the while, and are counted. Whatever the fault, the tables are in the end what
// compiling the same objects from nothing gives.
//
// Each fault prints one line, and the whole suite a table. docs/faults.md describes
// faults and how they are made.
package faults

import (
	"os"
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/faults/inject"
	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

func TestMain(m *testing.M) {
	inject.Launched()
	if !netlab.Isolated() {
		process.Main(m, cluster.Etcd, cluster.APIServer) // runs this again in namespaces of its own, and exits
	}
	code := m.Run()
	report.print()
	os.Exit(code)
}
