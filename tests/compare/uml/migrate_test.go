// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMigrate runs the test of package rollout that wants IPVS inside a machine that has
// it: kube-nft takes a node over from kube-proxy in mode ipvs, and gives it back.
func TestMigrate(t *testing.T) {
	if packages := Missing(); len(packages) > 0 {
		t.Skipf("not installed: %s (Debian's packages; make tools-uml)", strings.Join(packages, " "))
	}
	m, console := machine(t)
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	build := func(dir string, args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	test, program := filepath.Join(m.Share, "rollout.test"), filepath.Join(m.Share, "kube-nft")
	build(root, "test", "-c", "-o", test, "./tests/rollout")
	build(root, "build", "-o", program, "./cmd/kube-nft")
	m.Memory = leastMemory
	job := Job{
		Args: []string{test, "-test.run=^TestMigrateIPVS$", "-test.v", "-test.timeout=9m"},
		Env:  append(environ(os.Environ()), "KUBE_NFT_PROGRAM="+program, "TMPDIR=/run"),
		Dir:  filepath.Join(root, "tests/rollout"),
	}
	began := time.Now()
	code, err := m.Run(t.Context(), job)
	if err != nil || code != 0 || !strings.Contains(console.String(), "--- PASS: TestMigrateIPVS") {
		t.Fatalf("exit code %d, %v; console:\n%s", code, err, console)
	}
	for line := range strings.Lines(console.String()) {
		if strings.Contains(line, "connections, ") {
			t.Log(strings.TrimSpace(line))
		}
	}
	t.Logf("took %v", time.Since(began).Round(time.Second))
}
