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
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/process"
)

func TestMain(m *testing.M) { process.Main(m, cluster.Etcd, cluster.APIServer, cluster.Proxy) }
