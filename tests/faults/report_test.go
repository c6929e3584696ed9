// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/kube-nft/kube-nft/tests/process"
)

// outcome is what became of a fault.
type outcome struct {
	fault         string
	injected      int
	asked, lost   int64
	repair        time.Duration // from when the fault was over until the tables were right
	before, after vitals
}

// reports are the outcomes of all tests.
type reports struct {
	mu  sync.Mutex
	all []outcome
}

var report reports

func (r *reports) add(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, o)
}

// print prints a table of all outcomes, with the sums below.
func (r *reports) print() {
	if len(r.all) == 0 {
		return
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tINJECTED\tREQUESTS\tLOST\tREPAIRED\tRSS MiB\tFDS\tGOROUTINES")
	sum := outcome{fault: fmt.Sprintf("all %d", len(r.all))}
	for _, o := range r.all {
		fmt.Fprintln(w, o.row())
		sum.injected += o.injected
		sum.asked += o.asked
		sum.lost += o.lost
		sum.repair = max(sum.repair, o.repair)
	}
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\tat most %.2f s\t\t\t\n", sum.fault, sum.injected, sum.asked, sum.lost, sum.repair.Seconds())
	_ = w.Flush()
}

func (o outcome) row() string {
	memory, descriptors, goroutines := "", "", ""
	if o.after.memory > 0 {
		memory = fmt.Sprintf("%.1f → %.1f", o.before.memory, o.after.memory)
		descriptors = fmt.Sprintf("%d → %d", o.before.descriptors, o.after.descriptors)
		goroutines = fmt.Sprintf("%d → %d", o.before.goroutines, o.after.goroutines)
	}
	return fmt.Sprintf("%s\t%d\t%d\t%d\t%.2f s\t%s\t%s\t%s", o.fault, o.injected, o.asked, o.lost, o.repair.Seconds(), memory, descriptors, goroutines)
}

// vitals are what must not grow in a process.
type vitals struct {
	memory      float64 // resident, MiB
	descriptors int
	goroutines  int
}

// vitals reads those of kube-nft on the node.
func (s *site) vitals() (v vitals) {
	s.t.Helper()
	v, err := s.readVitals()
	s.Must(err)
	return v
}

func (s *site) readVitals() (v vitals, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.agent.PID()))
	if err != nil {
		return v, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kB, err := strconv.Atoi(f[1])
			if err != nil {
				return v, err
			}
			v.memory = float64(kB) / 1024
		}
	}
	descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.agent.PID()))
	if err != nil {
		return v, err
	}
	v.descriptors = len(descriptors)
	code, text, err := process.Get(s.node, "http://127.0.0.1:10249/metrics")
	if err != nil {
		return v, err
	}
	if code != http.StatusOK {
		return v, fmt.Errorf("metrics: status %d", code)
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			v.goroutines, err = strconv.Atoi(strings.TrimSpace(rest))
			return v, err
		}
	}
	return v, errors.New("metrics: no go_goroutines")
}

// growth is how much a process may have grown by a fault: a little of Go's heap, a
// connection that is idle, goroutines of one.
var growth = vitals{memory: 24, descriptors: 6, goroutines: 12}

// conclude ends the traffic, prints a fault's line and fails the test if anything was
// lost or has grown.
func (s *site) conclude(o outcome, tr *traffic) {
	s.t.Helper()
	if tr != nil {
		tr.stop()
		o.asked, o.lost = tr.asked.Load(), tr.lost.Load()
		if o.lost > 0 {
			s.t.Errorf("%s: %d of %d requests were lost, the first: %v", o.fault, o.lost, o.asked, tr.first)
		}
		if o.asked == 0 {
			s.t.Errorf("%s: nothing was asked", o.fault)
		}
	}
	if o.injected == 0 {
		s.t.Errorf("%s: nothing was injected", o.fault)
	}
	b, a := o.before, o.after
	if a.memory > b.memory+growth.memory || a.descriptors > b.descriptors+growth.descriptors || a.goroutines > b.goroutines+growth.goroutines {
		s.t.Errorf("%s: the process has grown: %+v, was %+v", o.fault, a, b)
	}
	report.add(o)
	s.t.Logf("%s", strings.ReplaceAll(o.row(), "\t", " | "))
}
