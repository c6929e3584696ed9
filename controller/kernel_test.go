// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// pass makes one pass over everything delivered and checks the kernel.
func (c *Controller) mustPass(t *testing.T) Commit {
	t.Helper()
	var done Commit
	c.config.Committed = func(d Commit) { done = d }
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	return done
}

// TestGrow: a table that outgrows its sets is made anew with larger ones, and
// nothing is missing.
func TestGrow(t *testing.T) {
	lab := netlab.NewT(t)
	conn := openKernel(t, lab.Namespace("node"))
	c := New(testConfig(), conn)
	load := &source.Synthetic{Services: 3000, Endpoints: 3, DualStack: true, NodePorts: 0.1, ExternalIPs: 0.1}
	c.queue.Synced()
	c.mustPass(t)
	small := c.tables[0].schema.Sizes
	for i := range load.Services {
		c.queue.SetService(load.Service(i))
		for _, s := range load.Slices(i) {
			c.queue.SetSlice(s)
		}
		if i%500 == 499 {
			c.mustPass(t)
			check(t, c, conn)
		}
	}
	grown := c.tables[0].schema.Sizes
	if grown[nft.Services] <= small[nft.Services] || grown[nft.Endpoints] <= small[nft.Endpoints] {
		t.Errorf("sizes %v have not grown from %v", grown, small)
	}
	for i := range load.Services {
		c.queue.DeleteService(load.ServiceName(i))
	}
	c.mustPass(t)
	check(t, c, conn)
}

// TestReplacedCluster: a table full of Services that are all gone makes room for
// others, though old and new do not fit side by side.
func TestReplacedCluster(t *testing.T) {
	lab := netlab.NewT(t)
	conn := openKernel(t, lab.Namespace("node"))
	old, next := New(testConfig(), conn), New(testConfig(), conn)
	load := &source.Synthetic{Services: 1400, Endpoints: 1}
	for i := range load.Services {
		into := old
		if i%2 == 1 {
			into = next
		}
		into.queue.SetService(load.Service(i))
		for _, s := range load.Slices(i) {
			into.queue.SetSlice(s)
		}
	}
	for _, c := range []*Controller{old, next} {
		c.queue.Synced()
		c.mustPass(t)
		check(t, c, conn)
	}
}

// TestCrowdedService: more endpoints than chains for each number, coming and going.
func TestCrowdedService(t *testing.T) {
	lab := netlab.NewT(t)
	conn := openKernel(t, lab.Namespace("node"))
	c := New(testConfig(), conn)
	c.queue.Synced()
	load := &source.Synthetic{Services: 3, Endpoints: 1000}
	c.queue.SetService(load.Service(2))
	slices := load.Slices(2)
	for _, s := range append(slices, slices[:5]...) {
		c.queue.SetSlice(s)
		c.mustPass(t)
		check(t, c, conn)
	}
	for _, s := range slices {
		s.Endpoints = s.Endpoints[:len(s.Endpoints)/3]
		c.queue.SetSlice(s)
		if done := c.mustPass(t); done.Batches != 1 {
			t.Errorf("%d transactions for one slice", done.Batches)
		}
		check(t, c, conn)
	}
	if done := restart(c, conn); done.Batches != 0 {
		t.Errorf("a restart committed %+v", done)
	}
}

// TestRepair: whatever others do to the table, one thing after the other, the running
// controller puts it right.
func TestRepair(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	running(t, ns, testConfig(), &source.Synthetic{Services: 20, Endpoints: 3, DualStack: true})
	want, err := ns.Ruleset()
	lab.Must(err)
	for _, script := range []string{
		"delete element ip kube-nft KUBE-CLUSTER-IP { 10.64.0.1 }",
		"flush map ip kube-nft KUBE-SERVICES",
		"flush set ip6 kube-nft KUBE-CLUSTER-IP",
		"add element ip kube-nft KUBE-NODE-IP { 192.0.2.66 }",
		"flush chain ip kube-nft PREROUTING",
		"insert rule ip6 kube-nft OUTPUT drop",
		"delete table ip kube-nft",
		"flush ruleset",
	} {
		lab.Must(ns.NFT(script))
		lab.Eventually(2*lastWait, func() error {
			if rules, err := ns.Ruleset(); err != nil || !sameTables(rules, want) {
				return errors.Join(err, errors.New("not repaired after: "+script))
			}
			return nil
		})
	}
}

// sameTables compares listings; tables may change places, and chains that were
// made later stand last.
func sameTables(a, b string) bool { return sorted(a) == sorted(b) }

func sorted(listing string) string {
	lines := slices.Collect(strings.Lines(listing))
	slices.Sort(lines)
	return strings.Join(lines, "")
}
