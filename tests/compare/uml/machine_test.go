// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// initWord makes this test program the init of a machine.
const initWord = "uml-init"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == initWord {
		fmt.Fprintln(os.Stderr, Init())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestArgs(t *testing.T) {
	m := Machine{Kernel: "/cache/linux", Init: []string{"/bin/compare", "uml-init"}, Share: "/tmp/share", Memory: 3 << 30}
	got := m.args("/tmp/machine")
	for _, want := range []string{
		"mem=3072M", "uml_dir=/tmp/machine", "rootfstype=hostfs", "ro", "init=/bin/compare", "KUBE_NFT_SHARE=/tmp/share",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %s in %q", want, got)
		}
	}
	if end := got[len(got)-2:]; !slices.Equal(end, []string{"--", "uml-init"}) {
		t.Errorf("ends in %q", end)
	}
}

func TestSpare(t *testing.T) {
	for _, c := range []struct{ free, want int64 }{{24 << 30, 6 << 30}, {4 << 30, 3 << 30}, {2 << 30, 0}} {
		got, err := spare(c.free)
		if got != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("of %d: %d, %v, want %d", c.free, got, err, c.want)
		}
	}
}

func TestBacking(t *testing.T) {
	if dir, err := backing(1); err != nil || dir == "" {
		t.Errorf("for a byte: %q, %v", dir, err)
	}
	if dir, err := backing(1 << 60); err == nil || !strings.Contains(err.Error(), "MiB") {
		t.Errorf("for an exabyte: %q, %v", dir, err)
	}
}

func TestPathOfWords(t *testing.T) {
	if _, err := NewMachine("linux", initWord, "/tmp/two words", io.Discard); err == nil {
		t.Error("no error for a directory with a space in its name")
	}
}

func TestEnviron(t *testing.T) {
	got := environ([]string{"HOME=/root", "PATH=/elsewhere", "PATHS=1"})
	if want := []string{"HOME=/root", "PATHS=1", "PATH=" + lookIn}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// machine returns one, if a kernel was built.
func machine(t *testing.T) (Machine, *bytes.Buffer) {
	t.Helper()
	kernel, err := Find()
	if errors.Is(err, ErrNoKernel) {
		t.Skipf("%v; `compare ipvs --build` builds it", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", t.TempDir()) // to see what is left
	var console bytes.Buffer
	m, err := NewMachine(kernel, initWord, t.TempDir(), &console)
	if err != nil {
		t.Skip(err)
	}
	m.Memory = 512 << 20
	return m, &console
}

// sh returns a job that is a script of the host's shell.
func sh(script string) Job {
	return Job{Args: []string{"/bin/sh", "-c", script}, Env: os.Environ(), Dir: "/"}
}

func TestBoot(t *testing.T) {
	m, console := machine(t)
	written := filepath.Join("/tmp", fmt.Sprintf("kube-nft-inside-%d", os.Getpid()))
	script := `set -e
echo kept >"$1/result"
echo lost >` + written + `
test -e /proc/net/ip_vs
ip link add kube-ipvs0 type dummy
nproc >"$1/processors"
sysctl -n net.ipv4.vs.conntrack >"$1/conntrack"
nft add table ip t && nft list ruleset
exit 7`
	job := sh(script)
	job.Args = append(job.Args, "sh", m.Share)
	code, err := m.Run(t.Context(), job)
	if err != nil || code != 7 {
		t.Fatalf("exit code %d, %v; console:\n%s", code, err, console)
	}
	for name, want := range map[string]string{"result": "kept", "processors": "1", "conntrack": "0"} {
		got, err := os.ReadFile(filepath.Join(m.Share, name))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: %q, %v, want %s", name, got, err, want)
		}
	}
	if !strings.Contains(console.String(), "table ip t") {
		t.Errorf("no ruleset on the console:\n%s", console)
	}
	if _, err := os.Stat(written); err == nil {
		os.Remove(written)
		t.Errorf("%s was written on the host", written)
	}
	alone(t, m)
}

// Time inside is the host's, and goes by as it does there.
func TestClock(t *testing.T) {
	m, console := machine(t)
	job := sh(`date +%s.%N; sleep 2; date +%s.%N`)
	began := time.Now()
	code, err := m.Run(t.Context(), job)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v; console:\n%s", code, err, console)
	}
	ended := time.Now()
	var at []time.Time
	for _, word := range strings.Fields(console.String()) {
		if s, err := strconv.ParseFloat(word, 64); err == nil && s > 1e9 {
			at = append(at, time.UnixMicro(int64(s*1e6)))
		}
	}
	if len(at) != 2 {
		t.Fatalf("no two times on the console:\n%s", console)
	}
	const slack = 100 * time.Millisecond
	if at[0].Before(began.Add(-slack)) || at[1].After(ended.Add(slack)) {
		t.Errorf("inside from %v to %v, outside from %v to %v", at[0], at[1], began, ended)
	}
	if d := at[1].Sub(at[0]); d < 2*time.Second-slack || d > ended.Sub(began) {
		t.Errorf("two seconds took %v", d)
	}
}

// A machine whose time is over leaves nothing.
func TestEnd(t *testing.T) {
	m, console := machine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if code, err := m.Run(ctx, sh("sleep 1000 & sleep 1000")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("exit code %d, %v; console:\n%s", code, err, console)
	}
	alone(t, m)
}

// alone fails the test if a process runs the machine's kernel with its share, or a
// directory of a machine is left.
func alone(t *testing.T, m Machine) {
	t.Helper()
	out, _ := exec.Command("pgrep", "-a", "-f", shareVariable+"="+m.Share).Output()
	if len(out) > 0 {
		t.Errorf("left: %s", out)
	}
	if dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), "kube-nft-uml-*")); len(dirs) > 0 {
		t.Errorf("left: %q", dirs)
	}
}
