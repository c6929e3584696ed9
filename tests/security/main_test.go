// SPDX-License-Identifier: Apache-2.0

// Package security shows what kube-nft may do and what it does with that: the program
// itself runs on a small node with the privileges that docs/security.md says are enough,
// under the seccomp profile of deploy/seccomp, and lives through what a node brings. What
// it listens on is compared with the list there.
package security

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// confineEnv tells the isolated process where tests/confine is.
const confineEnv = "SECURITY_TEST_CONFINE"

// TestMain builds outside the namespaces of netlab, where the network may be needed.
func TestMain(m *testing.M) {
	if netlab.Isolated() {
		process.Main(m)
	}
	path, err := netlab.GoBuild(context.Background(), "github.com/kube-nft/kube-nft/tests/confine")
	if err == nil {
		err = os.Setenv(confineEnv, path)
	}
	if err != nil {
		netlab.GiveUp(err)
	}
	process.Main(m)
}

// root is the directory of the source tree.
var root = filepath.Join("..", "..")

// profile is the seccomp profile that operators get.
var profile = filepath.Join(root, "deploy", "seccomp", "kube-nft.json")
