// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
)

// tracked is a conntrack table in memory. One goroutine at a time may use it.
type tracked struct {
	flows  []netip.AddrPort // as sent
	server []netip.AddrPort // as answered
	ports  []uint16         // that were asked for
	during func()           // called in the middle of each look
	fail   []error          // of the next looks, one each
}

func (k *tracked) add(dst, server string) {
	k.flows = append(k.flows, netip.MustParseAddrPort(dst))
	k.server = append(k.server, netip.MustParseAddrPort(server))
}

func (k *tracked) Purge(_ context.Context, f nft.Family, p nft.Proto, port uint16, stale func(dst, server netip.AddrPort) bool) (seen, deleted int, err error) {
	if p != nft.UDP {
		return 0, 0, fmt.Errorf("asked for %s", p)
	}
	k.ports = append(k.ports, port)
	if len(k.fail) > 0 {
		err, k.fail = k.fail[0], k.fail[1:]
		return 0, 0, err
	}
	if k.during != nil {
		k.during()
	}
	for i := 0; i < len(k.flows); i++ {
		if nft.FamilyOf(k.flows[i].Addr()) != f || port != 0 && port != k.flows[i].Port() {
			continue
		}
		if seen++; stale(k.flows[i], k.server[i]) {
			k.flows, k.server = slices.Delete(k.flows, i, i+1), slices.Delete(k.server, i, i+1)
			deleted++
			i--
		}
	}
	return seen, deleted, nil
}

func (k *tracked) list() (all []string) {
	for i := range k.flows {
		all = append(all, k.flows[i].String()+" "+k.server[i].String())
	}
	return all
}

func newTestCleaner(k Conntrack) *Cleaner {
	local := func() ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}, nil
	}
	c := NewCleaner(k, local, slog.New(slog.NewTextHandler(io.Discard, nil)))
	c.spare = 0 // tests look at once
	return c
}

// at makes a UDP frontend from text; ":30053" is a node port.
func at(s string) compile.Frontend {
	if s[0] == ':' {
		return compile.Frontend{Proto: nft.UDP, Port: netip.MustParseAddrPort("0.0.0.0" + s).Port()}
	}
	a := netip.MustParseAddrPort(s)
	return compile.Frontend{Addr: a.Addr(), Proto: nft.UDP, Port: a.Port()}
}

func eps(all ...string) (e Endpoints) {
	for _, s := range all {
		e = append(e, netip.MustParseAddrPort(s))
	}
	return e
}

const (
	vip  = "10.96.0.10:53"
	pod1 = "10.128.0.1:5353"
	pod2 = "10.128.0.2:5353"
	pod4 = "10.128.0.4:5353"
)

// TestStale: which flows are deleted.
func TestStale(t *testing.T) {
	primary := []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	cases := []struct {
		name        string
		nodeIPs     []netip.Addr
		dst, server string
		stale       bool
	}{
		{"to an endpoint", primary, vip, pod1, false},
		{"to no endpoint", primary, vip, pod4, true},
		{"to an endpoint's other port", primary, vip, "10.128.0.1:53", true},
		{"never translated", primary, vip, vip, true},
		{"without endpoints", primary, "10.96.0.11:53", pod1, true},
		{"other port", primary, "10.96.0.10:54", pod4, false},
		{"other address", primary, "10.96.0.12:53", pod4, false},
		{"node port, endpoint", primary, "192.0.2.1:30053", pod1, false},
		{"node port, no endpoint", primary, "192.0.2.1:30053", pod4, true},
		{"node port, never translated", primary, "192.0.2.1:30053", "192.0.2.1:30053", true},
		{"node port where none is served", primary, "192.0.2.2:30053", pod4, false},
		{"node port of another host", primary, "198.51.100.1:30053", "198.51.100.1:30053", false},
		{"address before node port", primary, "192.0.2.1:30054", pod2, false},
		{"address before node port, stale", primary, "192.0.2.1:30054", pod1, true},
		{"node ports everywhere", nil, "192.0.2.2:30053", pod4, true},
		{"node ports everywhere but on loopback", nil, "127.0.0.1:30053", pod4, false},
		{"node ports everywhere, another host", nil, "198.51.100.1:30053", pod4, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			k := &tracked{}
			c := newTestCleaner(k)
			if tc.nodeIPs != nil {
				c.SetNodeIPs(nft.IPv4, tc.nodeIPs)
			}
			c.Check(nft.IPv4, map[compile.Frontend]Endpoints{
				at(vip): eps(pod1, pod2), at(":30053"): eps(pod1, pod2), at("10.96.0.11:53"): nil,
				at(":30054"): eps(pod1), at("192.0.2.1:30054"): eps(pod2),
			})
			k.add(tc.dst, tc.server)
			if err := c.sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
			if gone := len(k.flows) == 0; gone != tc.stale {
				t.Errorf("deleted is %t", gone)
			}
		})
	}
}

// looks sweeps until nothing is left to do, and returns how often.
func (c *Cleaner) looks(t *testing.T) (n int) {
	t.Helper()
	for ; c.due(); n++ {
		if err := c.sweep(context.Background()); err != nil || n > 9 {
			t.Fatalf("sweep %d: %v", n, err)
		}
	}
	return n
}

// TestLooks: what makes the Cleaner look, and how often.
func TestLooks(t *testing.T) {
	c := newTestCleaner(&tracked{})
	check := func(endpoints ...string) func() {
		return func() { c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(vip): eps(endpoints...)}) }
	}
	allow := func(endpoints ...string) func() {
		return func() { c.Allow(nft.IPv4, at(vip), func() Endpoints { return eps(endpoints...) }) }
	}
	for _, step := range []struct {
		name string
		do   func()
		want int
	}{
		{"new", check(pod1), 2},
		{"the same", check(pod1), 0},
		{"one more", check(pod1, pod2), 0},
		{"one less", check(pod2), 2},
		{"another", check(pod1), 2},
		{"one that comes is allowed", allow(pod1, pod2), 0},
		{"and committed", check(pod1, pod2), 0},
		{"one that comes is allowed once more", allow(pod1, pod2, pod4), 0},
		{"but has gone when committed", check(pod1, pod2), 2},
		{"none", check(), 2},
		{"first, allowed", allow(pod1), 0},
		{"first", check(pod1), 2},
		{"node port", func() { c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(":30053"): eps(pod1)}) }, 2},
		{"node addresses", func() { c.SetNodeIPs(nft.IPv4, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) }, 2},
		{"the same node addresses", func() { c.SetNodeIPs(nft.IPv4, []netip.Addr{netip.MustParseAddr("192.0.2.1")}) }, 0},
		{"other node addresses", func() { c.SetNodeIPs(nft.IPv4, []netip.Addr{netip.MustParseAddr("192.0.2.2")}) }, 2},
		{"nothing", func() { c.Check(nft.IPv4, nil) }, 0},
	} {
		step.do()
		if n := c.looks(t); n != step.want {
			t.Errorf("%s: looked %d times, want %d", step.name, n, step.want)
		}
	}
	check()()
	c.looks(t)
	if n := len(c.families[nft.IPv4].frontends); n != 1 {
		t.Errorf("%d frontends are remembered, want the node port", n)
	}
}

// TestMeanwhile: what comes in while the Cleaner looks counts at once, and is looked
// for from the beginning afterwards.
func TestMeanwhile(t *testing.T) {
	k := &tracked{}
	c := newTestCleaner(k)
	change := func(endpoints ...string) {
		c.Allow(nft.IPv4, at(vip), func() Endpoints { return eps(endpoints...) })
	}
	c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(vip): eps(pod1)})
	k.add(vip, pod1)
	k.add(vip, pod2)
	k.during = func() { change(pod2) }
	if err := c.sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{vip + " " + pod1, vip + " " + pod2}, k.list()); d != "" {
		t.Errorf("an endpoint that is about to come lost its flow (-want +got):\n%s", d)
	}
	k.during = func() {
		k.during = nil
		c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(vip): eps(pod2)})
	}
	if n := c.looks(t); n != 3 {
		t.Errorf("looked %d times, want once and then twice", n)
	}
	if d := cmp.Diff([]string{vip + " " + pod2}, k.list()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestPorts: few ports are looked at one by one, many all at once.
func TestPorts(t *testing.T) {
	for n, want := range map[int][]uint16{0: nil, 1: {1}, 4: {1, 2, 3, 4}, 5: {0}} {
		k := &tracked{}
		c := newTestCleaner(k)
		for port := range n {
			f := at(vip)
			f.Port = uint16(port + 1)
			node := f
			node.Addr = netip.Addr{}
			c.Check(nft.IPv4, map[compile.Frontend]Endpoints{f: nil, node: nil})
		}
		if err := c.sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
		slices.Sort(k.ports)
		if d := cmp.Diff(want, k.ports); d != "" {
			t.Errorf("%d ports (-want +got):\n%s", n, d)
		}
	}
}

// TestCleanerRun: Run looks until all is done, and after an error again.
func TestCleanerRun(t *testing.T) {
	k := &tracked{fail: []error{errors.New("not now")}}
	k.add(vip, pod4)
	c := newTestCleaner(k)
	seen := make(chan Walk, 10)
	c.Walked = func(w Walk) { seen <- w }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(vip): eps(pod1)})
	next := func() (w Walk) {
		select {
		case w = <-seen:
		case <-time.After(5 * time.Second):
			t.Fatal("no walk")
		}
		return w
	}
	for _, want := range []Walk{
		{Family: nft.IPv4, Err: cmpopts.AnyError},
		{Family: nft.IPv4, Seen: 1, Deleted: 1},
		{Family: nft.IPv4},
	} {
		if d := cmp.Diff(want, next(), cmpopts.IgnoreFields(Walk{}, "Took"), cmpopts.EquateErrors()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(vip): eps(pod2)})
	next()
	cancel()
	<-done
}

// TestFlowsOfEvents: whatever happens in whatever order, after each commit the
// Cleaner knows of every UDP frontend the endpoints that compiling from nothing
// gives, and of no others.
func TestFlowsOfEvents(t *testing.T) {
	for seed := range uint64(4) {
		config := testConfig()
		config.Cleaner = newTestCleaner(&tracked{})
		c := New(config, Discard{})
		c.queue.Synced()
		step := 0
		for event := range source.Events(seed, 1000) {
			step++
			event.Apply(c.queue)
			if step%7 == 3 {
				continue // two events in one commit
			}
			if err := c.pass(context.Background()); err != nil {
				t.Fatal(err)
			}
			if step%5 == 0 {
				config.Cleaner.looks(t) // what is gone is forgotten
			}
			for _, table := range c.tables {
				compareFlows(t, c, table.schema.Family)
			}
			if t.Failed() {
				t.Fatalf("seed %d, step %d, %s", seed, step, event)
			}
		}
	}
}

func compareFlows(t *testing.T, c *Controller, f nft.Family) {
	t.Helper()
	fresh, want, got := fromNothing(c, f), make(map[string]string), make(map[string]string)
	for _, e := range c.state.Services() {
		for frontend := range fresh.Claims(e.Name, nft.UDP) {
			holder, port, _ := fresh.Holder(frontend)
			serving := c.state.Serving(holder, port, model.UDP, fresh.Model())
			if len(serving) > 0 {
				want[frontend.String()] = fmt.Sprint(serving)
			}
		}
	}
	for frontend, at := range c.config.Cleaner.families[f].frontends {
		if len(at.allowed) > 0 {
			got[frontend.String()] = fmt.Sprint([]netip.AddrPort(at.allowed))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-from nothing +known):\n%s", f, d)
	}
}

// TestUnderWay: who was asked just before it left may still answer.
func TestUnderWay(t *testing.T) {
	c := newTestCleaner(&tracked{})
	c.spare = underWay
	c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(vip): eps(pod1)})
	begin := time.Now()
	c.Check(nft.IPv4, map[compile.Frontend]Endpoints{at(vip): eps(pod2)})
	stale := func(server string) bool {
		return c.stale(nft.IPv4, netip.MustParseAddrPort(vip), netip.MustParseAddrPort(server))
	}
	if !stale(pod4) || stale(pod2) {
		t.Error("who never was an endpoint is spared, or one that is one is not")
	}
	if spared := !stale(pod1); !spared && time.Since(begin) < underWay {
		t.Error("an endpoint that left just now is not spared")
	}
	eventually(t, func() error {
		if !stale(pod1) {
			return errors.New("still spared")
		}
		return nil
	})
	if took := time.Since(begin); took < underWay {
		t.Errorf("spared for %v only", took)
	}
}
