// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// testConfig is the configuration of a node in the namespaces of tests.
func testConfig() Config {
	return Config{
		NodeName: "node-0",
		Rules: Rules{Options: map[nft.Family]nft.Options{
			nft.IPv4: {MasqueradeBit: nft.DefaultMasqueradeBit, LocalPods: nft.LocalPods{Prefix: netip.MustParsePrefix("10.128.0.0/10")}, Counters: true},
			nft.IPv6: {MasqueradeBit: nft.DefaultMasqueradeBit, Counters: true},
		}},
		NodeIPs: func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")}
		},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func openKernel(t testing.TB, ns *netlab.Namespace) *kernel.Conn {
	t.Helper()
	conn, err := kernel.Open(kernel.Options{NetNS: ns.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// fromNothing compiles the state as a process would that starts now.
func fromNothing(c *Controller, f nft.Family) *compile.Table {
	fresh := compile.NewTable(f)
	if c.node != nil {
		fresh.SetNodeAddr(c.node.Addrs[fresh.Model()])
	}
	fresh.SetServiceCIDRs(c.state.ServiceCIDRs.Of(fresh.Model()))
	for _, e := range c.state.Services() {
		fresh.Set(e.Service, func(p *model.ServicePort) model.Selection {
			return model.Select(e.Endpoints(nil, p, fresh.Model()), c.zone())
		})
	}
	if c.node == nil {
		fresh.SetNodeIPs(c.config.NodeIPs())
	} else {
		fresh.SetNodeIPs(c.config.NodePorts.Addrs(c.node, nil))
	}
	return fresh
}

// facts writes contents so that the order of slots does not matter; a slot above
// the number of a frontend's endpoints is written as a hole.
func facts(c nft.Contents) []string {
	type frontend struct {
		set nft.Set
		key nft.Key
	}
	slots := make(map[frontend]int)
	var all []string
	for _, e := range c.Sorted() {
		if !e.Set.HoldsEndpoints() {
			all = append(all, e.String())
			continue
		}
		slot := e.Key.Slot
		e.Key.Slot = 0
		f := frontend{e.Set, e.Key}
		if int(slot) != slots[f] {
			all = append(all, fmt.Sprintf("hole before slot %d of %v", slot, e))
		}
		slots[f]++
		all = append(all, e.String())
	}
	slices.Sort(all)
	return all
}

func collect(t *compile.Table) nft.Contents {
	var c nft.Contents
	for e := range t.All() {
		c.Put(e)
	}
	affinities, _ := t.Affinities()
	for _, a := range affinities {
		c.PutAffinity(a)
	}
	return c
}

func owned(c nft.Contents) []string {
	var all []string
	for port, a := range c.Affinities {
		all = append(all, fmt.Sprintf("%s %+v", port, a))
	}
	slices.Sort(all)
	return all
}

// check compares the kernel's tables with what the state means.
func check(t *testing.T, c *Controller, conn *kernel.Conn) {
	t.Helper()
	for _, table := range c.tables {
		have, err := conn.Read(context.Background(), table.schema)
		if err != nil {
			t.Fatal(err)
		}
		want := collect(fromNothing(c, table.schema.Family))
		if d := cmp.Diff(facts(want), facts(have)); d != "" {
			t.Fatalf("%s table (-from nothing +kernel):\n%s", table.schema.Family, d)
		}
		if d := cmp.Diff(owned(want), owned(have)); d != "" {
			t.Fatalf("%s table, what Service ports own (-from nothing +kernel):\n%s", table.schema.Family, d)
		}
		for chain := range want.Chains {
			if _, ok := have.Chains[chain]; !ok {
				t.Fatalf("%s table lacks chain %s", table.schema.Family, chain)
			}
		}
	}
}

// TestEvents is the property behind everything: whatever happens in whatever
// order, after each commit the kernel holds what compiling from nothing gives.
func TestEvents(t *testing.T) {
	t.Parallel()
	steps := 1500
	if testing.Short() {
		steps = 200
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			lab := netlab.NewT(t)
			conn := openKernel(t, lab.Namespace("node"))
			c := New(testConfig(), conn)
			c.queue.Synced()
			step := 0
			var last []string
			for event := range source.Events(seed, steps) {
				step++
				last = append(last[max(0, len(last)-5):], event.String())
				event.Apply(c.queue)
				if step%7 == 3 || step%50 > 10 && step%50 < 25 {
					continue // several events in one commit
				}
				if step%50 == 25 {
					// A kill and a start: nobody watched what happened last.
					pending, _ := c.queue.take()
					c.merge(pending)
					if done := restart(c, conn); done.Batches < 0 {
						t.Fatalf("step %d: a start failed\nafter %q", step, last)
					}
				}
				if err := c.pass(context.Background()); err != nil {
					t.Fatalf("step %d: %v\nafter %q", step, err, last)
				}
				check(t, c, conn)
				if step%100 == 0 {
					// A restart: what is in the kernel is adopted without a change.
					again := restart(c, conn)
					if n := again.Batches; n != 0 {
						t.Fatalf("step %d: a restart committed %+v", step, again)
					}
				}
			}
			t.Logf("%d steps", step)
		})
	}
}

// restart starts a second controller on the same state and returns what it did.
func restart(c *Controller, conn *kernel.Conn) Commit {
	var done Commit
	config := c.config
	config.Committed = func(d Commit) { done = d }
	fresh := New(config, conn)
	fresh.state, fresh.node = c.state, c.node
	fresh.state.MarkAll()
	fresh.queue.Synced()
	if err := fresh.pass(context.Background()); err != nil {
		done.Batches = -1
	}
	for i, table := range fresh.tables {
		*c.tables[i] = *table
	}
	return done
}
