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
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/process"
)

func TestMain(m *testing.M) { process.Main(m, cluster.Etcd, cluster.APIServer) }
