// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kube-nft/kube-nft/tests/process"
)

// program is a process in the node's namespace.
type program struct {
	*process.Process
	s *site
}

// start starts a program that ends with the test, at the latest.
func (s *site) start(name string, args ...string) *program {
	s.t.Helper()
	return &program{process.Start(s.t, s.node, name, args...), s}
}

// runAgent starts kube-nft.
func (s *site) runAgent() *program {
	s.t.Helper()
	return s.start(process.KubeNFT(), "run",
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
	return time.Since(p.Began)
}

// await waits until kube-nft's log has a message that begins so.
func (p *program) await(within time.Duration, message string) {
	p.s.t.Helper()
	p.Await(within, message)
}

// logged returns the lines of kube-nft's log whose message begins so.
func (p *program) logged(message string) []map[string]any { return p.Logged(message) }

// end signals the process, which may have ended, and waits for its end.
func (p *program) end(signal syscall.Signal) { p.End(signal) }

// resident returns the process's memory as the kernel counts it.
func (p *program) resident() string {
	p.s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
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

// startMonitor listens to what the kernel tells of changes to the node's tables.
func (s *site) startMonitor() *process.Monitor {
	s.t.Helper()
	return process.StartMonitor(s.t, s.node)
}
