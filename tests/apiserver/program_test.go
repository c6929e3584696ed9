// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// program is a process in the node's namespace whose output goes to a file.
type program struct {
	s      *site
	cmd    *netlab.Cmd
	output string
	began  time.Time
	done   chan struct{}
}

// start starts a program that ends with the test, at the latest.
func (s *site) start(name string, args ...string) *program {
	s.t.Helper()
	p := &program{s: s, output: filepath.Join(s.t.TempDir(), "output"), done: make(chan struct{})}
	out, err := os.Create(p.output)
	s.Must(err)
	defer out.Close()
	p.cmd = s.node.Command(context.Background(), name, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.began = time.Now()
	s.Must(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // killed, as a rule
		close(p.done)
	}()
	s.t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", filepath.Base(name), p.text())
		}
	})
	return p
}

// runAgent starts kube-nft.
func (s *site) runAgent() *program {
	s.t.Helper()
	return s.start(os.Getenv(programEnv), "run",
		"--kubeconfig", s.api.Kubeconfig(user.Name),
		"--hostname-override", nodeName,
		"--cluster-cidr", clusterCIDR,
		"--conntrack-max-per-core", "0", // that is the machine's
		"--logging-format", "json", "--v", "2")
}

// awaitProgrammed waits until kube-nft says so, and returns how long that took.
func (p *program) awaitProgrammed() time.Duration {
	p.s.t.Helper()
	p.await(soon, "everything is programmed")
	return time.Since(p.began)
}

// await waits until kube-nft's log has a message that begins so.
func (p *program) await(within time.Duration, message string) {
	p.s.t.Helper()
	p.s.Eventually(within, func() error {
		if !p.alive() {
			return errors.New("kube-nft has ended")
		}
		if len(p.logged(message)) == 0 {
			return fmt.Errorf("kube-nft has not said %q", message)
		}
		return nil
	})
}

// logged returns the lines of kube-nft's log whose message begins so.
func (p *program) logged(message string) (lines []map[string]any) {
	for line := range strings.Lines(p.text()) {
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

func (p *program) text() string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (p *program) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end signals the process, which may have ended, and waits for its end.
func (p *program) end(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal)
	<-p.done
}

// resident returns the process's memory as the kernel counts it.
func (p *program) resident() string {
	p.s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	p.s.Must(err)
	found := make(map[string]float64)
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[2] == "kB" {
			kb, err := strconv.Atoi(fields[1])
			p.s.Must(err)
			found[fields[0]] = float64(kb) / 1024
		}
	}
	return fmt.Sprintf("%.1f MiB (anonymous %.1f, peak %.1f)", found["VmRSS:"], found["RssAnon:"], found["VmHWM:"])
}

// monitor is what the kernel tells of changes to the node's tables.
type monitor struct {
	*program
	from int // where in the output the part of interest begins
}

var marks atomic.Int64

// startMonitor listens to the kernel; what happens from now on is reported.
func (s *site) startMonitor() *monitor {
	s.t.Helper()
	m := &monitor{program: s.start("nft", "monitor")}
	// It says nothing when it is ready. It lists everything first, and begins again
	// when something changes meanwhile: it is not asked too often.
	s.Eventually(soon, func() error {
		s.mark()
		return netlab.Poll(2*time.Second, func() error {
			if !strings.Contains(m.text(), "add table") {
				return errors.New("nft monitor does not report")
			}
			return nil
		})
	})
	m.events()
	return m
}

// mark changes the node's tables in a way that is easy to find, and returns what.
func (s *site) mark() string {
	s.t.Helper()
	table := fmt.Sprintf("ip mark-%d", marks.Add(1))
	s.Must(s.node.NFT("add table " + table + "\ndelete table " + table))
	return "delete table " + table
}

// events returns what changed in kube-nft's tables since the last call, a line
// each.
func (m *monitor) events() (lines []string) {
	m.s.t.Helper()
	mark := m.s.mark()
	var text string
	m.s.Eventually(soon, func() error {
		text = m.text()[m.from:]
		if at := strings.Index(text, mark+"\n"); at >= 0 {
			text = text[:at]
			m.from += at + len(mark) + 1
			return nil
		}
		return errors.New("nft monitor does not report")
	})
	for line := range bytes.Lines([]byte(text)) {
		if bytes.Contains(line, []byte("kube-nft")) && !bytes.HasPrefix(line, []byte("#")) {
			lines = append(lines, strings.TrimSpace(string(line)))
		}
	}
	return lines
}
