// SPDX-License-Identifier: Apache-2.0

package program

import (
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
)

// plan says what a visit measures, and for how long. Zero is not at all.
type plan struct {
	idle           time.Duration
	changes        int           // of each kind
	changesWithin  time.Duration // fewer if they take longer, but some
	patience       time.Duration // fewer still
	rates          []int         // of churn, changes a second
	churn          time.Duration // at each rate
	restart, trace bool
	traceIdle      time.Duration
}

var (
	small = setup.Options{
		Peers: []string{"kube-nft", "nftables", "iptables"}, Shapes: []string{"1000x10"},
		Rounds: 1, Limit: 2 * time.Minute,
	}
	full = setup.Options{
		Peers:  []string{"kube-nft", "nftables", "nftables-1.36", "iptables", "iptables-nft"},
		Shapes: []string{"1000x10", "5000x10", "10000x10", "10000x2", "44125x1", "30000x10", "5006x50", "1x100000"},
		Rounds: 3, Limit: 6 * time.Minute,
	}
)

// deep is the shape of a full comparison in which everything is measured for long.
const deep = "10000x10"

// planOf returns what the first visit of a peer measures, and later ones.
func planOf(o setup.Options, s shape.Shape, round int) plan {
	p := plan{
		idle: 10 * time.Second, changes: 200, changesWithin: 8 * time.Second, patience: 90 * time.Second,
		rates: []int{100, 1000}, churn: 10 * time.Second, restart: true, trace: true, traceIdle: 5 * time.Second,
	}
	switch {
	case o.Full && s.Name == deep:
		p.idle, p.changesWithin, p.churn, p.traceIdle = 2*time.Minute, time.Minute, time.Minute, time.Minute
	case o.Full:
		p.idle, p.patience = 0, time.Minute
	}
	if round > 0 {
		p = plan{changes: p.changes, changesWithin: p.changesWithin / 2, patience: p.patience / 2}
	}
	return p
}

const (
	// slowStart is where a full comparison measures changes only, and once.
	slowStart = 45 * time.Second
	// quadraticLimit is how many Services a full comparison gives to whoever's work
	// grows with their square.
	quadraticLimit = 5000
)

// without returns the plan for a proxy that needed so long to start.
func (p plan) without(took time.Duration) plan {
	if took > slowStart {
		p.idle, p.churn, p.restart, p.trace = 0, 0, false, false
		p.changes = few
	}
	return p
}

// tooLarge says why a full comparison leaves out a peer in a shape; empty is that it
// does not.
func tooLarge(o setup.Options, p peer.Peer, s shape.Shape) string {
	if o.Full && p.Quadratic && s.Services > quadraticLimit {
		return "it would take hours: its work grows with the square of the number of Services"
	}
	return ""
}
