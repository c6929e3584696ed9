// SPDX-License-Identifier: Apache-2.0

// Package e2e tests kube-nft from end to end: the program itself runs on a node
// of a small cluster of network namespaces, reads manifests as a user writes
// them, and real packets show what it made of them. Tests say who answered and
// from where the server was asked, or how a client was refused; never which
// rules exist. Test names carry the feature, case names the semantics (A1.1 is
// the ClusterIP) that they hold kube-nft to.
package e2e

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) {
	if play := os.Getenv(strangerEnv); play != "" {
		os.Exit(stranger(play)) // a process that a test started
	}
	if !netlab.Isolated() {
		netlab.Main(m) // runs this again in namespaces of its own, and exits
	}
	code := m.Run()
	if built.path != "" {
		_ = os.RemoveAll(filepath.Dir(built.path))
	}
	os.Exit(code)
}

// built is the program under test, once something needed it.
var built struct {
	once sync.Once
	path string
	err  error
}

// programEnv names a kube-nft to test instead of the one that is built from here.
const programEnv = "KUBE_NFT_PROGRAM"

// program returns the path of kube-nft, built on first use. Other users may
// execute it.
func program(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(programEnv); path != "" {
		return path
	}
	built.once.Do(func() {
		built.path, built.err = netlab.GoBuild(context.Background(), "github.com/kube-nft/kube-nft/cmd/kube-nft")
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}
