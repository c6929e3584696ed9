// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/kube-nft/kube-nft/controller/load"
	"github.com/kube-nft/kube-nft/controller/view"
)

// topLines prints rounds of lines, for scripts and where there is no terminal.
func topLines(ctx context.Context, out, notes io.Writer, s *topSampler, o topOptions) error {
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	said := ""
	for round := 0; o.rounds == 0 || round < o.rounds; round++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r, err := s.read(ctx, nil)
		if err != nil {
			return err
		}
		rows := r.Select(o.filter, o.order, false)
		if o.rows > 0 && len(rows) > o.rows {
			rows = rows[:o.rows]
		}
		endpoints := make(map[view.Name][]load.Endpoint, len(rows))
		for _, row := range rows {
			table, err := s.endpoints(row.Name)
			if err != nil {
				return err
			}
			endpoints[row.Name] = s.meter.Endpoints(row.Name, table)
		}
		if r.Note != said {
			said = r.Note
			fmt.Fprintln(notes, said)
		}
		if o.output == "json" {
			err = printTopJSON(out, r, rows, endpoints)
		} else {
			err = printTopLines(out, r, rows, endpoints, round)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func printTopLines(out io.Writer, r *glance, rows []*load.Row, endpoints map[view.Name][]load.Endpoint, round int) error {
	if round > 0 {
		fmt.Fprintln(out)
	}
	fmt.Fprintf(out, "%s  %s\n", r.At.Format(time.TimeOnly), topSummary(r))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERVICE\tPROTO\tNEW/S\tOPEN\tENDPOINTS\tBUSIEST\tSHARE\tSTATE")
	for _, row := range rows {
		busiest, share := "-", "-"
		if row.Busiest.IsValid() {
			busiest, share = row.Busiest.String(), percent(row.Share)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", row.Name, row.Protocol, perSecond(row.PerSecond), howMany(row.Open),
			serving(endpoints[row.Name]), busiest, share, topState(row))
	}
	return w.Flush()
}

// topSummary is what holds of all together.
func topSummary(r *glance) string {
	s := fmt.Sprintf("%s new/s  %s open  %d Service ports", perSecond(r.PerSecond), howMany(r.Open), len(r.Rows))
	if r.Refused > 0 {
		s += fmt.Sprintf(", %d refused", r.Refused)
	}
	if r.Dropped > 0 {
		s += fmt.Sprintf(", %d dropped for some", r.Dropped)
	}
	return s
}

// topState is the state, and how much is dropped.
func topState(r *load.Row) string {
	if r.Dropped > 0 {
		return fmt.Sprintf("%s %s/s", r.State, perSecond(r.Dropped))
	}
	return r.State.String()
}

// serving counts the endpoints that have not left; a pod of two families counts twice.
func serving(all []load.Endpoint) (n int) {
	for _, e := range all {
		if !e.Left {
			n++
		}
	}
	return n
}

// perSecond writes a rate in few digits.
func perSecond(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 9.95:
		return fmt.Sprintf("%.1f", n)
	case n < 99_999.5:
		return fmt.Sprintf("%.0f", n)
	case n < 9_999_500:
		return fmt.Sprintf("%.0fk", n/1000)
	}
	return fmt.Sprintf("%.0fM", n/1e6)
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }

// howMany writes a number that may not be known.
func howMany(n int) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// topRound is a round as JSON. Names of fields are documented.
type topRound struct {
	Time      time.Time `json:"time"`
	Since     time.Time `json:"since"`
	PerSecond float64   `json:"newPerSecond"`
	Open      *int      `json:"open,omitempty"`
	Note      string    `json:"note,omitempty"`
	Rows      []topRow  `json:"rows"`
}

type topRow struct {
	Namespace string        `json:"namespace"`
	Service   string        `json:"service"`
	Port      string        `json:"port,omitempty"`
	Protocol  string        `json:"protocol"`
	State     string        `json:"state"`
	PerSecond float64       `json:"newPerSecond"`
	Dropped   float64       `json:"droppedPerSecond"`
	New       uint64        `json:"new"`
	Open      *int          `json:"open,omitempty"`
	Endpoints []topEndpoint `json:"endpoints"`
}

type topEndpoint struct {
	Address   string  `json:"address"`
	PerSecond float64 `json:"newPerSecond"`
	New       uint64  `json:"new"`
	Share     float64 `json:"share"`
	Open      int     `json:"open"`
	Left      bool    `json:"left"`
}

func printTopJSON(out io.Writer, r *glance, rows []*load.Row, endpoints map[view.Name][]load.Endpoint) error {
	round := topRound{Time: r.At, Since: r.Since, PerSecond: r.PerSecond, Open: optional(r.Open), Note: r.Note, Rows: []topRow{}}
	for _, row := range rows {
		one := topRow{
			Namespace: row.Namespace, Service: row.Service, Port: row.Port, Protocol: row.Protocol.String(), State: row.State.String(),
			PerSecond: row.PerSecond, Dropped: row.Dropped, New: row.New, Open: optional(row.Open), Endpoints: []topEndpoint{},
		}
		for _, e := range endpoints[row.Name] {
			one.Endpoints = append(one.Endpoints, topEndpoint{e.Addr.String(), e.PerSecond, e.New, e.Share, e.Open, e.Left})
		}
		round.Rows = append(round.Rows, one)
	}
	return json.NewEncoder(out).Encode(round)
}

func optional(n int) *int {
	if n < 0 {
		return nil
	}
	return &n
}
