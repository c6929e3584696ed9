// SPDX-License-Identifier: Apache-2.0

// Package process runs programs in the namespaces of a laboratory for tests, and
// follows what they say: kube-nft, kube-proxy, and nft as the kernel's mouth.
package process

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Process is a program in a namespace, whose output goes to a file.
type Process struct {
	Began time.Time

	tb     testing.TB
	n      *netlab.Namespace
	name   string
	cmd    *netlab.Cmd
	output string
	done   chan struct{} // closed when it has ended
}

// Start starts a program that ends with the test, at the latest. The end of its
// output is in that of a test that fails.
func Start(tb testing.TB, n *netlab.Namespace, program string, args ...string) *Process {
	tb.Helper()
	p := &Process{
		tb: tb, n: n, name: filepath.Base(program) + " on " + n.Name(),
		output: filepath.Join(tb.TempDir(), "output"), done: make(chan struct{}),
	}
	out, err := os.Create(p.output)
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	p.cmd = n.Command(context.Background(), program, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.Began = time.Now()
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // killed, as a rule
		close(p.done)
	}()
	tb.Cleanup(func() {
		p.End(syscall.SIGKILL)
		if tb.Failed() {
			tb.Logf("%s said at last:\n%s", p.name, p.Tail(60))
		}
	})
	return p
}

// End signals the process, which may have ended, and waits for its end.
func (p *Process) End(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
	<-p.done
}

// Gone returns an error if the process has ended, with its last words.
func (p *Process) Gone() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %v\n%s", p.name, p.cmd.ProcessState, p.Tail(20))
	default:
		return nil
	}
}

// Exit waits for the end of the process, and returns its exit status.
func (p *Process) Exit(within time.Duration) int {
	p.tb.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.tb.Fatalf("%s has not ended within %v", p.name, within)
		return 0
	}
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Text returns all that the process has said.
func (p *Process) Text() string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Tail returns the last lines of it.
func (p *Process) Tail(n int) string {
	lines := strings.SplitAfter(p.Text(), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// Logged returns the lines of a log in JSON whose message begins so.
func (p *Process) Logged(message string) (lines []map[string]any) {
	for line := range strings.Lines(p.Text()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) != nil {
			continue // it is being written
		}
		if text, ok := fields["msg"].(string); ok && strings.HasPrefix(text, message) {
			lines = append(lines, fields)
		}
	}
	return lines
}

// Await waits until the log has a message that begins so.
func (p *Process) Await(within time.Duration, message string) {
	p.tb.Helper()
	p.eventually(within, func() error {
		if len(p.Logged(message)) == 0 {
			return fmt.Errorf("%s has not said %q", p.name, message)
		}
		return nil
	})
}

// AwaitStatus waits until the process's namespace answers a GET request with this
// status, as a kubelet's probe would see it.
func (p *Process) AwaitStatus(within time.Duration, url string, status int) {
	p.tb.Helper()
	p.eventually(within, func() error {
		got, body, err := Get(p.n, url)
		if err == nil && got != status {
			err = fmt.Errorf("%s answers %s with %d, want %d: %s", p.name, url, got, status, body)
		}
		return err
	})
}

// eventually waits for f, or for the end of the process, which is one of the test.
func (p *Process) eventually(within time.Duration, f func() error) {
	p.tb.Helper()
	var gone error
	err := netlab.Poll(within, func() error {
		if gone = p.Gone(); gone != nil {
			return nil
		}
		return f()
	})
	if gone != nil {
		err = gone
	}
	if err != nil {
		p.tb.Fatal(err)
	}
}

// Get asks over HTTP from inside a namespace; the host of the URL is an address.
func Get(n *netlab.Namespace, url string) (status int, body string, err error) {
	client := http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: n.DialContext},
	}
	response, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}
