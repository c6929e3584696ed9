// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/nft"
)

// RepairKind says how much of a table had to be written.
type RepairKind string

// The kinds of repairs.
const (
	// RepairElements: elements were missing, too many or others. All else stayed, and
	// counters of other elements with it.
	RepairElements RepairKind = "elements"
	// RepairRules: a chain, rule or set was not as it should be; the table was made
	// anew in one transaction, while the old one served.
	RepairRules RepairKind = "rules"
	// RepairTable: the table was gone.
	RepairTable RepairKind = "table"
)

var repairKinds = [...]RepairKind{RepairElements, RepairRules, RepairTable}

// Repair is what was put right after others, once.
type Repair struct {
	At     time.Time // when it was done
	Family nft.Family
	Kind   RepairKind
	// Elements were written or deleted; of a table that was made anew, all.
	Elements int
	// What is one of them as nft text, or what else was touched.
	What string
	// Took is the time from the first word of it until the kernel's answer.
	Took time.Duration
	// By is who touched it last; unknown if Missed.
	By nft.Process
	// Missed: it was found by looking, nobody had told.
	Missed bool
}

// Repairs is a picture of what others did to our tables and what became of it.
type Repairs struct {
	// Last are the last repairs, the newest first.
	Last []Repair
	// Delay is what a repair would wait now, beside somebody who goes on.
	Delay time.Duration
	// Commits counts others' transactions that touched our tables, by the name of the
	// process; of many names the rest is under "others".
	Commits map[string]int
	// Checked is when all was last looked at and known to be right; zero is never.
	Checked time.Time
}

const (
	keptRepairs = 32
	keptNames   = 20
	otherNames  = "others"
)

// repairs is what is told of repairs. Its methods may be called from several goroutines.
type repairs struct {
	metrics repairMetrics

	mu      sync.Mutex
	last    []Repair // the oldest first
	commits map[string]int
	fight   fight
	checked time.Time
}

type repairMetrics struct {
	commits *prometheus.CounterVec
	checks  *prometheus.CounterVec
	took    prometheus.Histogram
	tables  map[nft.Family]tableRepairs
}

type tableRepairs struct {
	kinds  map[RepairKind]prometheus.Counter
	missed prometheus.Counter
	last   func() prometheus.Gauge // not there before the first: 0 would be 1970
}

// The results of checks.
const (
	checkSkipped = "skipped" // nobody else had written
	checkClean   = "clean"
	checkFound   = "found"
)

// measureRepairs makes the metrics, and returns what is to be registered.
func (c *Controller) measureRepairs() []prometheus.Collector {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	kinds := counter("kube_nft_repairs_total",
		"Times that a table was put right after somebody else, by what had to be written.", "kind", familyLabel)
	missed := counter("kube_nft_missed_drifts_total",
		"Repairs of what the check found and no notification had told of.", familyLabel)
	commits := counter("kube_nft_foreign_commits_total",
		"Transactions of others that touched our tables, by the name of the process.", "process")
	checks := counter("kube_nft_checks_total",
		"Checks of all tables: skipped, because nobody else had written; clean; or something was found.", "result")
	last := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kube_nft_last_repair_timestamp_seconds",
		Help: "When the table was last put right after somebody else, since 1970.",
	}, []string{familyLabel})
	took := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "kube_nft_repair_duration_seconds",
		Help:    "Time from the first word of a change by somebody else until it was put right.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 15), // 1 ms to 16 s
	})
	r := &repairs{commits: make(map[string]int)}
	r.metrics = repairMetrics{commits: commits, checks: checks, took: took, tables: make(map[nft.Family]tableRepairs)}
	for _, t := range c.tables {
		family := t.desired.Model().String()
		m := tableRepairs{kinds: make(map[RepairKind]prometheus.Counter), missed: missed.WithLabelValues(family),
			last: func() prometheus.Gauge { return last.WithLabelValues(family) }}
		for _, kind := range repairKinds {
			m.kinds[kind] = kinds.WithLabelValues(string(kind), family)
		}
		r.metrics.tables[t.schema.Family] = m
	}
	for _, result := range [...]string{checkSkipped, checkClean, checkFound} {
		checks.WithLabelValues(result)
	}
	c.repairs = r
	return []prometheus.Collector{kinds, missed, commits, checks, last, took, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kube_nft_repair_delay_seconds",
		Help: "How long a repair would wait now, because somebody goes on changing our tables; 0 is not at all.",
	}, func() float64 { return r.delay().Seconds() })}
}

// count counts transactions of others.
func (r *repairs) count(commits map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, n := range commits {
		if name = strings.ToValidUTF8(name, "?"); name == "" {
			name = "unknown"
		}
		if _, known := r.commits[name]; !known && len(r.commits) >= keptNames {
			name = otherNames
		}
		r.commits[name] += n
		r.metrics.commits.WithLabelValues(name).Add(float64(n))
	}
}

func (r *repairs) add(done Repair) {
	m := r.metrics.tables[done.Family]
	m.kinds[done.Kind].Inc()
	m.last().SetToCurrentTime()
	if done.Missed {
		m.missed.Inc()
	}
	r.metrics.took.Observe(done.Took.Seconds())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = append(r.last, done)
	if len(r.last) > keptRepairs {
		r.last = slices.Delete(r.last, 0, 1)
	}
}

// waiting notes how it stands with somebody who goes on.
func (r *repairs) waiting(f fight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fight = f
}

func (r *repairs) delay() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fight.waits(time.Now())
}

// ended notes how a check ended.
func (r *repairs) ended(result string) {
	r.metrics.checks.WithLabelValues(result).Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checked = time.Now()
}

// Repairs returns what others did to our tables and what became of it. It may be called
// from any goroutine, and waits for nothing.
func (c *Controller) Repairs() Repairs {
	r := c.repairs
	r.mu.Lock()
	defer r.mu.Unlock()
	p := Repairs{Last: slices.Clone(r.last), Delay: r.fight.waits(time.Now()), Commits: maps.Clone(r.commits), Checked: r.checked}
	slices.Reverse(p.Last)
	return p
}

// mended notes and says that something was put right.
func (c *Controller) mended(t *table, work touched, kind RepairKind, elements int, what string) {
	done := Repair{At: time.Now(), Family: t.schema.Family, Kind: kind, Elements: elements, What: what, By: work.by, Missed: work.missed}
	done.Took = done.At.Sub(work.since)
	c.repairs.add(done)
	attrs := []any{"table", t.schema.Family.String() + " " + nft.TableName, "kind", string(kind), "elements", elements,
		"what", what, "process", work.by.String(), "after", done.Took}
	if work.missed {
		c.heal.check.found++
		c.log.Warn("table was changed by somebody else unnoticed, the check has put it right", attrs...)
		return
	}
	c.tell("table was changed by somebody else, and put right", attrs...)
}

// tell warns of what others did; beside somebody who goes on, which was said, only for
// those who look closely.
func (c *Controller) tell(what string, attrs ...any) {
	level := slog.LevelWarn
	if c.heal.fight.told {
		level = slog.LevelDebug
	}
	c.log.Log(context.Background(), level, what, attrs...)
}
