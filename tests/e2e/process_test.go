// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// process is a kube-nft that was started.
type process struct {
	cmd  *netlab.Cmd
	log  netlab.Output
	done chan struct{} // closed when it has ended
}

// startProxy starts `kube-nft run` as node-0 on the manifests of a directory. It
// is killed when the test ends, and its log shown if the test failed.
func startProxy(t *testing.T, n *netlab.Namespace, manifests string, flags ...string) *process {
	t.Helper()
	args := append([]string{"run", "--manifests", manifests, "--hostname-override", "node-0", "--v", "2",
		"--conntrack-max-per-core", "0"}, flags...) // that is the machine's
	return startProcess(t, n.Command(t.Context(), program(t), args...))
}

func startProcess(t *testing.T, cmd *netlab.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // the state tells
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s\n%s%s", strings.Join(cmd.Args, " "), p.tail(), cmd.ProcessState)
		}
	})
	return p
}

// tail is the end of the log.
func (p *process) tail() string {
	lines := strings.SplitAfter(p.log.String(), "\n")
	if skip := len(lines) - 60; skip > 0 {
		return fmt.Sprintf("… %d lines\n%s", skip, strings.Join(lines[skip:], ""))
	}
	return strings.Join(lines, "")
}

// ended reports whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process without a warning; one that has ended is fine.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(os.Interrupt)
	if code := p.code(t); code != 0 {
		t.Fatalf("kube-nft ended with code %d when it was asked to", code)
	}
}

// code waits until the process ends by itself and returns its exit code.
func (p *process) code(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		t.Fatalf("kube-nft still runs:\n%s", p.tail())
	}
	return p.cmd.ProcessState.ExitCode()
}

// logs waits until one line of the log holds all of the words.
func (p *process) logs(t *testing.T, words ...string) {
	t.Helper()
	err := netlab.Poll(10*time.Second, func() error {
		if n := p.count(words...); n == 0 {
			return fmt.Errorf("no line of the log holds %q", words)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// count is the number of lines of the log that hold all of the words.
func (p *process) count(words ...string) int { return p.log.Count(words...) }

// command runs kube-nft in a namespace to its end, as another user if uid is not
// 0, and returns what it wrote and its exit code.
func command(t *testing.T, n *netlab.Namespace, uid uint32, args ...string) (string, int) {
	t.Helper()
	cmd := n.Command(t.Context(), program(t), args...)
	if uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	}
	p := startProcess(t, cmd)
	code := p.code(t)
	return p.log.String(), code
}
