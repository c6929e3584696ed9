// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
)

// servicesObject is the answer of /api/v1/services.
type servicesObject struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	At         time.Time    `json:"at"` // when the tables were read
	Total      int          `json:"total"`
	Offset     int          `json:"offset"`
	Items      []portObject `json:"items"`
}

// statusObject is the answer of /api/v1/status.
type statusObject struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Version    string    `json:"version"`
	Node       string    `json:"node"`
	Mode       string    `json:"mode"`
	Started    time.Time `json:"started"`
	At         time.Time `json:"at"`
	// Healthy says that nothing has been waiting for long to be programmed.
	Healthy bool `json:"healthy"`
	// ServicePorts are all, Unserved those at which somebody is refused or dropped.
	ServicePorts int `json:"servicePorts"`
	Unserved     int `json:"unserved"`
	Frontends    int `json:"frontends"`
	// PerSecond is of new connections; it is not there until tables were read twice.
	PerSecond *float64       `json:"connectionsPerSecond,omitempty"`
	Counted   bool           `json:"counted"` // whether frontends have counters
	Tables    []tableObject  `json:"tables"`
	Faults    []faultObject  `json:"faults"`
	Drifts    map[string]int `json:"drifts"` // since the start, by family
	Passes    passesObject   `json:"passes"`
}

// faultObject is a table that is not there or cannot be read.
type faultObject struct {
	IPFamily string `json:"ipFamily"`
	Missing  bool   `json:"missing"`
	Error    string `json:"error"`
}

type passesObject struct {
	Succeeded int          `json:"succeeded"`
	Failed    int          `json:"failed"`
	Compared  int          `json:"compared"` // of those that read tables as a whole
	Last      []passObject `json:"last"`
}

// passObject is one pass of the loop: what it committed, or why it failed.
type passObject struct {
	At           time.Time `json:"at"`
	TookSeconds  float64   `json:"tookSeconds"`
	Services     int       `json:"services"`
	Added        int       `json:"added"`
	Deleted      int       `json:"deleted"`
	Transactions int       `json:"transactions"`
	Compared     bool      `json:"compared"`
	Error        string    `json:"error,omitempty"`
	Times        int       `json:"times"` // in a row, if it failed
}

// statusOf completes the status with what was read of the tables.
func (p *page) statusOf(r *reading, err error) statusObject {
	o := p.status()
	o.APIVersion, o.Kind, o.At = objectVersion, "Status", r.at
	o.Tables, o.Faults = []tableObject{}, []faultObject{}
	for _, found := range r.sight.found {
		o.Tables = append(o.Tables, objectOfTable(found))
		o.Counted = o.Counted || found.Schema.Options.Counters
	}
	for _, f := range nft.Families {
		if fault := r.faults[f]; fault != nil {
			o.Faults = append(o.Faults, faultObject{familyName(f), errors.Is(fault, nft.ErrMissing), fault.Error()})
		}
	}
	for i := range r.sight.view.Ports {
		port := &r.sight.view.Ports[i]
		o.ServicePorts++
		o.Frontends += len(port.Frontends)
		if port.Worst() != view.Served {
			o.Unserved++
		}
	}
	if total, known := p.watch.total(); known {
		o.PerSecond = &total
	}
	o.Passes.Last = p.journal.list()
	return o
}

// total is the rate of all Service ports.
func (w *watcher) total() (perSecond float64, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rates.Total(), w.rates.Known()
}

// fromMetrics takes what metrics count.
func (o *statusObject) fromMetrics(g prometheus.Gatherer) {
	o.Drifts = make(map[string]int)
	families, _ := g.Gather() // what one collector lacks is no loss of the others
	for _, family := range families {
		for _, m := range family.Metric {
			labels := make(map[string]string)
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			o.count(family.GetName(), labels, int(m.GetCounter().GetValue()))
		}
	}
}

// count takes one counter.
func (o *statusObject) count(name string, labels map[string]string, n int) {
	switch {
	case name == "kube_nft_drifts_total":
		o.Drifts[labels["ip_family"]] += n
	case name == "kube_nft_resyncs_total":
		o.Passes.Compared += n
	case name == "kube_nft_commits_total" && labels["result"] == "success":
		o.Passes.Succeeded += n
	case name == "kube_nft_commits_total":
		o.Passes.Failed += n
	}
}
