// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// stopWithin is how long kube-nft may take to end when it is asked to.
const stopWithin = 5 * time.Second

// proxy is kube-nft itself, running on the demo's node.
type proxy struct {
	cmd   *netlab.Cmd
	log   *proxyLog
	asked chan struct{} // closed before it is asked to stop
	ended chan struct{} // closed when it has ended
	err   error         // set before ended is closed
}

// startProxy starts kube-nft in a namespace on a directory of manifests. If it
// ends by itself, cancel is called with the reason.
func startProxy(n *netlab.Namespace, manifests string, cancel context.CancelCauseFunc, note func(string)) (*proxy, error) {
	cmd := n.Command(context.Background(), "/proc/self/exe", "run", "--manifests", manifests,
		"--hostname-override", nodeName, "--cluster-cidr", podCIDRs, "--logging-format", "json", "-v", "2",
		"--conntrack-max-per-core", "0") // a limit of the whole machine's
	p := &proxy{cmd: cmd, log: &proxyLog{note: note}, asked: make(chan struct{}), ended: make(chan struct{})}
	cmd.Stderr = p.log
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start kube-nft: %w", err)
	}
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
		select {
		case <-p.asked:
		default:
			cancel(fmt.Errorf("kube-nft ended by itself (%v), it said:\n%s", p.err, p.log.tail()))
		}
	}()
	return p, nil
}

// stop asks kube-nft to end, as a service manager does, and waits for it.
func (p *proxy) stop() error {
	close(p.asked)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop kube-nft: %w", err)
	}
	select {
	case <-p.ended:
	case <-time.After(stopWithin):
		return fmt.Errorf("kube-nft did not stop within %s", stopWithin)
	}
	if p.err != nil {
		return fmt.Errorf("kube-nft did not end well: %w; it said:\n%s", p.err, p.log.tail())
	}
	return nil
}

// keepLines is how much of what kube-nft said is kept.
const keepLines = 12

// proxyLog reads what kube-nft logs: its commits for the demo to tell, what it
// warns of for the user to see, and the last lines for errors.
type proxyLog struct {
	note func(string)

	mu      sync.Mutex
	partial []byte
	lines   []string
	commits time.Duration // all of them together
}

// logLine is what the demo reads of a line of the log.
type logLine struct {
	Level    slog.Level    `json:"level"`
	Msg      string        `json:"msg"`
	Err      string        `json:"err"`
	Table    string        `json:"table"`
	Process  string        `json:"process"`
	Batches  int           `json:"batches"`
	Duration time.Duration `json:"duration"`
}

// text tells of a line in few words.
func (in logLine) text() string {
	text := "kube-nft: " + in.Msg
	for _, more := range []string{in.Table, in.Process, in.Err} {
		if more != "" {
			text += ": " + more
		}
	}
	return text
}

// Write implements io.Writer.
func (l *proxyLog) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partial = append(l.partial, data...)
	for {
		line, rest, ok := bytes.Cut(l.partial, []byte("\n"))
		if !ok {
			return len(data), nil
		}
		l.partial = rest
		l.add(string(line))
	}
}

func (l *proxyLog) add(line string) {
	l.lines = append(l.lines, line)
	if len(l.lines) > keepLines {
		l.lines = l.lines[1:]
	}
	var in logLine
	if json.Unmarshal([]byte(line), &in) != nil {
		return
	}
	if in.Batches > 0 {
		l.commits += in.Duration
	}
	if in.Level >= slog.LevelWarn {
		l.note(in.text())
	}
}

// committed is how long all transactions so far took; 0 is unknown.
func (l *proxyLog) committed() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commits
}

func (l *proxyLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(l.lines, string(l.partial)), "\n")
}
