// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// measure is something that must stay flat, as it was at some times.
type measure struct {
	name   string
	slack  float64   // how much more there may be at the end than at the beginning
	at     []float64 // seconds from the start
	values []float64
}

func (m *measure) add(at time.Duration, value float64) {
	m.at, m.values = append(m.at, at.Seconds()), append(m.values, value)
}

// measures are all of a soak.
type measures struct{ memory, descriptors, goroutines, elements, entries measure }

func newMeasures() *measures {
	return &measures{
		memory:      measure{name: "resident memory, MiB", slack: 12},
		descriptors: measure{name: "file descriptors", slack: 4},
		goroutines:  measure{name: "goroutines", slack: 8},
		elements:    measure{name: "elements", slack: 2000},
		entries:     measure{name: "conntrack entries", slack: 3000},
	}
}

// sampleEvery is how often there is a sample, at most: a short soak needs some, too.
const sampleEvery = 10 * time.Second

// sample samples kube-nft and its tables until ctx ends.
func (s *site) sample(ctx context.Context, c *churn, tr *traffic) *measures {
	s.t.Helper()
	m, began, told := newMeasures(), time.Now(), time.Now()
	tick := time.NewTicker(min(sampleEvery, *soakFor/20))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return m
		case <-tick.C:
		}
		at := time.Since(began)
		if err := s.measure(ctx, m, at); err != nil {
			s.t.Errorf("after %v: %v", at, err)
			return m
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			s.t.Logf("%v: %d changes, %d faults, %d requests, %d lost; %v", at.Round(time.Second),
				c.changes.Load(), c.faults.Load(), tr.asked.Load(), tr.lost.Load(), m)
		}
	}
}

// measure takes one sample of each.
func (s *site) measure(ctx context.Context, m *measures, at time.Duration) error {
	v, err := s.readVitals()
	if err != nil {
		return err
	}
	m.memory.add(at, v.memory)
	m.descriptors.add(at, float64(v.descriptors))
	m.goroutines.add(at, float64(v.goroutines))
	entries, err := s.connections()
	if err != nil {
		return err
	}
	m.entries.add(at, float64(entries))
	// A table that changes while it is read may not fit together: some other time, then.
	const tries = 4
	for range tries {
		if lines, err := s.inKernel(ctx); err == nil {
			m.elements.add(at, float64(len(lines)))
			break
		}
	}
	return nil
}

func (m *measures) all() []*measure {
	return []*measure{&m.memory, &m.descriptors, &m.goroutines, &m.elements, &m.entries}
}

// String is the last of each.
func (m *measures) String() string {
	var parts []string
	for _, one := range m.all() {
		if n := len(one.values); n > 0 {
			parts = append(parts, fmt.Sprintf("%s %.1f", one.name, one.values[n-1]))
		}
	}
	return strings.Join(parts, ", ")
}

// flat fails the test if anything grows: the line through the samples, without those
// of the first quarter, in which caches fill, rises by more than its slack.
func (m *measures) flat(t *testing.T) {
	t.Helper()
	for _, one := range m.all() {
		one.flat(t)
	}
}

func (m *measure) flat(t *testing.T) {
	t.Helper()
	from := len(m.at) / 4
	at, values := m.at[from:], m.values[from:]
	if len(at) < 3 {
		t.Errorf("%s: %d samples are too few", m.name, len(at))
		return
	}
	took := at[len(at)-1] - at[0]
	rise := slope(at, values) * took
	line := fmt.Sprintf("%s: from %.1f to %.1f, at most %.1f; the line through %d samples rises by %.2f in %.0f s",
		m.name, values[0], values[len(values)-1], slices.Max(values), len(values), rise, took)
	if rise > m.slack {
		t.Errorf("%s, which is not flat", line)
		return
	}
	t.Log(line)
}

// slope is that of the line of least squares.
func slope(x, y []float64) float64 {
	n := float64(len(x))
	var sx, sy, sxx, sxy float64
	for i := range x {
		sx, sy, sxx, sxy = sx+x[i], sy+y[i], sxx+x[i]*x[i], sxy+x[i]*y[i]
	}
	return (n*sxy - sx*sy) / (n*sxx - sx*sx)
}
