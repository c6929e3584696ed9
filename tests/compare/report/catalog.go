// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"slices"
	"strings"
)

// peer is a proxy as a column or a line.
type peer struct {
	name, title string
	ours        bool // kube-nft, which the others are compared with
	reference   bool // no proxy at all: what a proxy is measured by
}

// peers are those that have a place; others come behind, by their names.
var peers = []peer{
	{name: "kube-nft", title: "kube-nft", ours: true},
	{name: "nftables", title: "nftables"},
	{name: "nftables-1.36", title: "nftables 1.36"},
	{name: "iptables", title: "iptables"},
	{name: "iptables-nft", title: "iptables-nft"},
	{name: "ipvs", title: "IPVS"},
	{name: "bare", title: "one DNAT rule", reference: true},
	{name: "none", title: "no NAT", reference: true},
}

func peerOf(name string) peer {
	if i := slices.IndexFunc(peers, func(p peer) bool { return p.name == name }); i >= 0 {
		return peers[i]
	}
	return peer{name: name, title: name}
}

// comparePeers orders them as the columns of a table.
func comparePeers(a, b string) int {
	place := func(name string) int {
		if i := slices.IndexFunc(peers, func(p peer) bool { return p.name == name }); i >= 0 {
			return i
		}
		return len(peers)
	}
	return cmp.Or(place(a)-place(b), strings.Compare(a, b))
}

// measure is something that was measured, and how it is shown.
type measure struct {
	section, metric string
	unit            string // only rows in it, if it is said
	what            string
	tail            bool // the 99th percentile beside the median
	largest         bool // the largest value, and not the median
	neutral         bool // nobody is better by it
	format          func(float64) string
}

// question is what a reader asks; its answer is a table or a few.
type question struct {
	name, title string
	measures    []measure
	uml         bool // what was measured in user-mode Linux
	services    bool // rows go by the number of Services, whatever the endpoints
}

var questions = []question{
	{name: "start", title: "From process start until every Service carries packets",
		measures: []measure{
			{section: "start", metric: "all-carried", what: "every Service carries packets"},
			{section: "start", metric: "programming", what: "of this, work at tables by its own metrics"},
		}},
	{name: "priority", title: "From process start until default/kubernetes and DNS carry packets",
		measures: []measure{{section: "start", metric: "priority-carried"}}},
	{name: "change", title: "One endpoint change, written to the API, until a packet reaches the new endpoint",
		measures: []measure{
			{section: "change", metric: "first-packet", what: "idle,", tail: true},
			{section: "churn", metric: "first-packet", what: "beside", tail: true},
			{section: "churn", metric: "rate", what: "written in fact, of", neutral: true},
		}},
	{name: "cpu", title: "CPU time, of the process and what it starts",
		measures: []measure{
			{section: "start", metric: "cpu", what: "start"},
			{section: "restart", metric: "cpu", what: "restart"},
			{section: "change", metric: "cpu-per-change", what: "one change,"},
			{section: "churn", metric: "cpu-per-change", what: "one change, of"},
			{section: "churn", metric: "cpu-share", what: "share of one core, at", format: percent},
			{section: "idle", metric: "cpu-hour", what: "an idle hour"},
		}},
	{name: "memory", title: "Memory",
		measures: []measure{
			{section: "memory", metric: "rss-peak", what: "peak of the start, with what it starts"},
			{section: "memory", metric: "rss-steady", what: "after the start"},
			{section: "memory", metric: "rss-idle", what: "after a while"},
			{section: "memory", metric: "kernel", what: "its tables in the kernel"},
		}},
	{name: "kernel", title: "What is asked of the kernel",
		measures: []measure{
			{section: "start", metric: "lock-hold", what: "longest hold of the nftables lock, start", largest: true},
			{section: "change", metric: "lock-hold", what: "longest hold of the nftables lock, one change at a time", largest: true},
			{section: "churn", metric: "lock-hold", what: "longest hold of the nftables lock, many changes", largest: true},
			{section: "restart", metric: "lock-hold", what: "longest hold of the nftables lock, restart", largest: true},
			{section: "start", metric: "bytes-written", what: "bytes written, start"},
			{section: "change", metric: "bytes-written", what: "bytes written, one change,"},
			{section: "restart", metric: "bytes-written", what: "bytes written, restart"},
			{section: "start", metric: "dumps", what: "dumps, start"},
			{section: "change", metric: "dumps", what: "dumps, one change,"},
			{section: "restart", metric: "dumps", what: "dumps, restart"},
			{section: "idle", metric: "dumps", what: "dumps, idle"},
		}},
	{name: "restart", title: "Restart, on the tables that the process before has left, until a change made meanwhile is in effect",
		measures: []measure{
			{section: "restart", metric: "first-packet", what: "until then"},
			{section: "restart", metric: "lost", what: "packets without an answer meanwhile"},
		}},
	{name: "packet", title: "First packet of a connection; one hand-written DNAT rule is 1", services: true,
		measures: []measure{{section: "packet", metric: "first-packet", unit: "ratio", format: times}}},
	{name: "packet-ns", title: "The same as time for each packet", services: true,
		measures: []measure{{section: "packet", metric: "first-packet", unit: "ns"}, {section: "packet", metric: "first-packet", unit: "s"}}},
	{name: "flow", title: "Established flows", services: true,
		measures: []measure{
			{section: "flow", metric: "throughput", what: "throughput"},
			{section: "flow", metric: "latency", what: "latency", tail: true},
			{section: "flow", metric: "requests", what: "requests"},
		}},
	{name: "ipvs", title: "First packet in user-mode Linux; one hand-written DNAT rule in it is 1", services: true, uml: true,
		measures: []measure{{section: "packet", metric: "first-packet", unit: "ratio", format: times}}},
	{name: "other", title: "Other measurements"},
}

// cases are those that have a place; others come behind.
var cases = []string{"", "replace", "add", "random", "hot", "nodeport", "local", "affinity", "random-featured"}

var caseTitles = map[string]string{
	"replace":  "one endpoint for another",
	"add":      "one endpoint more",
	"random":   "all Services, at random",
	"hot":      "one Service",
	"nodeport": "a node port",
	"local":    "a Service with the policy Local",
	"affinity": "a Service with session affinity",
	// Beside the last three.
	"random-featured": "all others beside these, at random",
}

func caseTitle(name string) string {
	if t, ok := caseTitles[name]; ok {
		return t
	}
	if n := rate(name); n > 0 {
		return digits(n) + " changes a second"
	}
	return name
}
