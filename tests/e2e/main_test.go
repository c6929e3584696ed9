// SPDX-License-Identifier: Apache-2.0

// Package e2e tests kube-nft from end to end: the program itself runs on a node
// of a small cluster of network namespaces, reads manifests as a user writes
// them, and real packets show what it made of them. Tests say who answered and
// from where the server was asked, or how a client was refused; never which
// rules exist. Test names carry the feature, case names the semantics (A1.1 is
// the ClusterIP) that they hold kube-nft to.
package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) {
	if !netlab.Isolated() {
		netlab.Main(m) // runs this again in namespaces of its own, and exits
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// built is the program under test, once something needed it.
var built struct {
	once sync.Once
	dir  string
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
		if built.dir, built.err = os.MkdirTemp("", "kube-nft-e2e-"); built.err != nil {
			return
		}
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", built.dir, "github.com/kube-nft/kube-nft/cmd/kube-nft")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build kube-nft: %w\n%s", err, bytes.TrimSpace(out))
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "kube-nft")
}
