// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Monitor is what the kernel tells of changes to the tables of a namespace.
type Monitor struct {
	*Process
	from int // where in the output the part of interest begins
}

// reportLimit is patience with nft, on a busy machine.
const reportLimit = 15 * time.Second

var marks atomic.Int64

// StartMonitor listens to the kernel; what happens from now on is reported.
func StartMonitor(tb testing.TB, n *netlab.Namespace) *Monitor {
	tb.Helper()
	m := &Monitor{Process: Start(tb, n, "nft", "monitor")}
	// It says nothing when it is ready. It lists everything first, and begins again
	// when something changes meanwhile: it is not asked too often.
	m.eventually(reportLimit, func() error {
		m.mark()
		return netlab.Poll(2*time.Second, func() error {
			if !strings.Contains(m.Text(), "add table") {
				return errors.New("nft monitor does not report")
			}
			return nil
		})
	})
	m.Events()
	return m
}

// mark changes the tables in a way that is easy to find, and returns what.
func (m *Monitor) mark() string {
	m.tb.Helper()
	table := fmt.Sprintf("ip mark-%d", marks.Add(1))
	if err := m.n.NFT("add table " + table + "\ndelete table " + table); err != nil {
		m.tb.Fatal(err)
	}
	return "delete table " + table
}

// Events returns what changed in kube-nft's tables since the last call, a line each.
func (m *Monitor) Events() (lines []string) {
	m.tb.Helper()
	mark := m.mark()
	var text string
	m.eventually(reportLimit, func() error {
		text = m.Text()[m.from:]
		if at := strings.Index(text, mark+"\n"); at >= 0 {
			text = text[:at]
			m.from += at + len(mark) + 1
			return nil
		}
		return errors.New("nft monitor does not report")
	})
	for line := range strings.Lines(text) {
		if strings.Contains(line, "kube-nft") && !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// Spared checks that since the last look kube-nft's tables changed, by elements and
// their chains only, and that nothing with one of these texts was written: the
// addresses and node ports of Services that had not changed.
func (m *Monitor) Spared(texts ...string) {
	m.tb.Helper()
	events := m.Events()
	if len(events) == 0 {
		m.tb.Errorf("%s: the kernel reports no change at all", m.n.Name())
	}
	for _, event := range events {
		if !strings.Contains(event, " element ") && !strings.Contains(event, " chain ") && !strings.Contains(event, " rule ") {
			m.tb.Errorf("%s: a change of something else than elements and their chains: %s", m.n.Name(), event)
		}
		for _, text := range texts {
			if strings.Contains(event, " "+text+" ") {
				m.tb.Errorf("%s: %s, which had not changed, was written: %s", m.n.Name(), text, event)
			}
		}
	}
}
