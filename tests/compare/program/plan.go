// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
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
	sustained      time.Duration // at the last one, if that is longer
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
		Shapes: []string{"10000x10", "1000x10", "30000x10", "44125x1", "5006x50", "1x100000", "100000x10"},
		Rounds: 3, Limit: 5 * time.Minute,
	}
)

const (
	// deep is the shape of a full comparison in which everything is measured, for long.
	deep = "10000x10"
	// shallow is the other one in which everything is measured.
	shallow = "1000x10"
)

// planOf returns what a visit measures: all in the first round, and starts again in the
// others, of which there is only one sample in a round.
func planOf(o setup.Options, p peer.Peer, s shape.Shape, round int) plan {
	all := plan{
		idle: 10 * time.Second, changes: 200, changesWithin: 6 * time.Second, patience: time.Minute,
		rates: []int{100, 1000}, churn: 10 * time.Second, restart: true, trace: true, traceIdle: 5 * time.Second,
	}
	switch {
	case round > 0 && o.Full:
		return plan{}
	case round > 0:
		return plan{changes: all.changes, changesWithin: all.changesWithin, patience: all.patience / 2}
	case !o.Full || s.Name == shallow:
	case s.Name == deep && (p.Most == 0 || p.Most > s.Services):
		all.changesWithin, all.sustained = 10*time.Second, time.Minute
		all.idle, all.traceIdle = 2*time.Minute, 30*time.Second
	default:
		all.idle, all.rates, all.restart, all.trace = 0, nil, false, false
	}
	return all
}

// plan returns what is wanted of that.
func (o options) plan(p peer.Peer, s shape.Shape, round int) plan {
	if o.startOnly {
		return plan{}
	}
	return planOf(o.Options, p, s, round)
}

const (
	// slowStart is how long a start is after which only changes are measured, a few, and
	// nothing a second time.
	slowStart = time.Minute
	// quickStart is how long it is at most for a proxy that churn is sustained for: the
	// others are behind from its first second on.
	quickStart = 5 * time.Second
)

// without returns the plan for a proxy that needed so long to start.
func (p plan) without(took time.Duration) plan {
	if took > slowStart {
		p.idle, p.churn, p.restart, p.trace = 0, 0, false, false
		p.changes, p.patience = min(p.changes, few), min(p.patience, 30*time.Second)
	}
	if took > quickStart {
		p.sustained = 0
	}
	return p
}

// tooLarge says why a full comparison leaves out a peer in a shape; empty is that it
// does not.
func tooLarge(o setup.Options, p peer.Peer, s shape.Shape) string {
	if o.Full && p.Most > 0 && s.Services > p.Most {
		return fmt.Sprintf("a full comparison gives it %d Services at most; name it and the shape without --full", p.Most)
	}
	return ""
}
