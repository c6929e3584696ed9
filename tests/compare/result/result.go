// SPDX-License-Identifier: Apache-2.0

// Package result holds what was measured: all that goes from those who measure to
// those who report.
package result

import (
	"slices"
	"time"
)

// File is what one run of a section measured.
type File struct {
	Host    Host
	Started time.Time
	Took    time.Duration
	Commit  string   // of kube-nft's sources; "+" at its end if they were changed
	Args    []string // the command line
	Rows    []Row
	Skipped []Skip
}

// Host is where it was measured.
type Host struct {
	Kernel, CPU string
	Cores       int
	MemoryMB    int
	UML         bool              // inside user-mode Linux
	Versions    map[string]string // of kube-nft, kube-proxy, nft, iptables, go …
}

// Row is one quantity, of one proxy with one cluster.
type Row struct {
	Section   string // "start" "change" "churn" "restart" "idle" "memory" "packet" "flow"
	Proxy     string // the name of a peer, or "bare" (one DNAT rule) or "none" (no NAT)
	Shape     string // "10000x10"
	Services  int    // of the shape, in all
	Endpoints int
	Case      string // "" or "random" "hot" "nodeport" "local" "affinity" "100/s" …
	Metric    string // "all-carried" "priority-carried" "first-packet" "rss-peak" "cpu" …
	Unit      string // "s" "B" "ns" "ratio" "1/s"; the report scales

	N                       int
	Min, P50, P90, P99, Max float64

	Note string // "" or "not done after 600 s"
}

// Skip is what could not be measured, and why.
type Skip struct {
	Section, Proxy, Shape, Case, What, Why string
}

// Add adds a row with the number of samples and their quantiles filled in. Without
// samples these are as in the row.
func (f *File) Add(row Row, samples ...float64) {
	if len(samples) > 0 {
		s := slices.Sorted(slices.Values(samples))
		row.N = len(s)
		row.Min, row.Max = s[0], s[len(s)-1]
		row.P50, row.P90, row.P99 = quantile(s, 0.5), quantile(s, 0.9), quantile(s, 0.99)
	}
	f.Rows = append(f.Rows, row)
}

// quantile returns the q-quantile of sorted samples, between the two next to it.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 == len(sorted) {
		return sorted[below]
	}
	part := at - float64(below)
	return sorted[below]*(1-part) + sorted[below+1]*part
}

// Skip notes what could not be measured.
func (f *File) Skip(s Skip) { f.Skipped = append(f.Skipped, s) }
