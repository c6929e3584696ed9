// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/kube-nft/kube-nft/controller/load"
	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// topSampler reads what top shows. One goroutine at a time calls read; another one
// listens to conntrack.
type topSampler struct {
	conn    *kernel.Conn
	meter   *load.Meter
	tracked *conntrack.Conn // nil if conntrack is not asked
	walkAt  time.Time       // when the next walk may begin

	mu     sync.Mutex
	began  map[load.Connection]uint64 // since the last glance
	lost   bool
	failed error // why conntrack does not tell
}

// glance is a Snapshot, and of Service ports that somebody looks at the endpoints.
type glance struct {
	*load.Snapshot
	Endpoints map[view.Name][]load.Endpoint
	// Note says what the numbers lack, "" if nothing.
	Note string
}

// maxBegan bounds what is remembered between two readings: ways from a frontend to an
// endpoint.
const maxBegan = 1 << 18

// walkShare bounds the part of the time that walks through conntrack take: of a table
// with a million entries one takes a second or so.
const walkShare = 20

func newTopSampler(ctx context.Context, tracked bool) (*topSampler, error) {
	conn, err := kernel.Open(kernel.Options{})
	if err != nil {
		return nil, err
	}
	s := &topSampler{conn: conn, meter: load.New(), began: make(map[load.Connection]uint64)}
	if !tracked {
		return s, nil
	}
	if s.tracked, err = conntrack.Open(conntrack.Options{}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go func() {
		if err := conntrack.Watch(ctx, conntrack.Options{}, s.add, s.miss); err != nil {
			s.mu.Lock()
			s.failed = err
			s.mu.Unlock()
		}
	}()
	return s, nil
}

func (s *topSampler) close() {
	s.conn.Close()
	if s.tracked != nil {
		s.tracked.Close()
	}
}

// add takes a connection that began.
func (s *topSampler) add(e *conntrack.Entry) {
	if e.Status&conntrack.Translated == 0 {
		return
	}
	c := load.Connection{Proto: e.Proto, Dst: e.Original.Dst, Server: e.Reply.Src}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.began[c]; !known && len(s.began) == maxBegan {
		s.lost = true
		return
	}
	s.began[c]++
}

// miss notes that connections began of which nothing is known.
func (s *topSampler) miss() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
}

// read makes a reading, and looks up the endpoints of those that are wanted.
func (s *topSampler) read(ctx context.Context, wanted []view.Name) (*glance, error) {
	now := time.Now()
	s.meter.Begin()
	whole := true
	for _, f := range nft.Families {
		all, err := s.conn.Connections(ctx, f, func(table uint64, e nft.Element, packets uint64) { s.meter.Add(f, table, e, packets) })
		if err != nil {
			return nil, err
		}
		whole = whole && all
	}
	note, err := s.readConntrack(ctx, now)
	if err != nil {
		return nil, err
	}
	s.meter.End(now, whole)
	r := &glance{Snapshot: s.meter.Snapshot(), Endpoints: make(map[view.Name][]load.Endpoint, len(wanted)), Note: note}
	for _, name := range wanted {
		table, err := s.endpoints(name)
		if err != nil {
			return nil, err
		}
		r.Endpoints[name] = s.meter.Endpoints(name, table)
	}
	return r, nil
}

// endpoints looks up who serves a Service port.
func (s *topSampler) endpoints(name view.Name) (all []netip.AddrPort, err error) {
	for _, h := range s.meter.Heads(name) {
		slots, err := s.conn.Slots(h.Family, h.Element)
		if err != nil {
			return nil, err
		}
		for _, e := range slots {
			all = append(all, e.Value.To)
		}
	}
	return all, nil
}

// readConntrack takes what began, and walks through what is open if it is time.
func (s *topSampler) readConntrack(ctx context.Context, now time.Time) (note string, err error) {
	if s.tracked == nil {
		return "", nil
	}
	s.mu.Lock()
	began, lost, failed := s.began, s.lost, s.failed
	s.began, s.lost = make(map[load.Connection]uint64, len(began)), false
	s.mu.Unlock()
	for c, n := range began {
		s.meter.New(c, n)
	}
	switch {
	case errors.Is(failed, fs.ErrPermission):
		return "", failed
	case failed != nil:
		note = "endpoints are not known: " + strings.ReplaceAll(failed.Error(), "\n", ": ")
	case sysctl("netfilter/nf_conntrack_events") == "0":
		note = "endpoints are not known: net.netfilter.nf_conntrack_events is 0"
	case lost:
		note = "conntrack told too much at a time: shares are of what was seen"
	}
	if now.Before(s.walkAt) {
		return note, nil
	}
	begin, open := time.Now(), make(map[load.Connection]int)
	for _, f := range nft.Families {
		err := s.tracked.Walk(ctx, conntrack.Filter{Family: f, Translated: true}, func(e *conntrack.Entry) bool {
			if e.Open() {
				open[load.Connection{Proto: e.Proto, Dst: e.Original.Dst, Server: e.Reply.Src}]++
			}
			return true
		})
		if err != nil {
			return "", fmt.Errorf("count open connections: %w", err)
		}
	}
	s.walkAt = begin.Add(walkShare * time.Since(begin))
	s.meter.Open(open)
	return note, nil
}
