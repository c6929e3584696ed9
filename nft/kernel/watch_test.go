// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// watched listens to a namespace until the test ends. next returns what was heard
// next, or ok false if that is nothing for so long.
func watched(t *testing.T, conn *kernel.Conn) (next func(patience time.Duration) (f nft.Foreign, ok bool)) {
	t.Helper()
	heard := make(chan nft.Foreign, 1000)
	listening := make(chan struct{})
	watching, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- conn.Watch(watching, func() { close(listening) }, func(f nft.Foreign) { heard <- f })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch ended with %v", err)
		}
	})
	select {
	case <-listening:
	case <-time.After(5 * time.Second):
		t.Fatal("Watch does not listen")
	}
	return func(patience time.Duration) (nft.Foreign, bool) {
		select {
		case f := <-heard:
			return f, true
		case <-time.After(patience):
			return nft.Foreign{}, false
		}
	}
}

// what writes what was touched, one line for each family.
func what(f nft.Foreign) (lines []string) {
	for _, t := range f.Touched {
		var words []string
		for _, e := range t.Elements {
			words = append(words, e.String())
		}
		slices.Sort(words)
		for _, s := range t.Sets {
			words = append(words, "set "+s.String())
		}
		for _, p := range t.Clients {
			words = append(words, "clients of "+p.String())
		}
		if t.Constant != "" {
			words = append(words, t.Constant)
		}
		lines = append(lines, fmt.Sprint(t.Family, ": ", strings.Join(words, ", ")))
	}
	return lines
}

// TestWatch: a change of our tables by others is reported with what it touched and who
// made it, once for each transaction, and nothing else is.
func TestWatch(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn := open(t, ns)
	for _, f := range nft.Families {
		lab.Must(conn.Reset(ctx, sample(withAffinity(f))))
	}
	next := watched(t, conn)
	cases := []struct {
		script string
		want   []string
	}{
		{"add table ip other\nadd chain ip other c\nadd table ip6 kube-nft-2\nadd set ip other s { type ipv4_addr; }\nadd element ip other s { 192.0.2.1 }", nil},
		{"delete element ip kube-nft KUBE-SEP { 10.96.0.10 . udp . 53 . 0 }", []string{"ip: KUBE-SEP { 10.96.0.10 . udp . 53 . 0 : invalid IP . 0 }"}},
		{"add element ip kube-nft KUBE-SEP { 10.96.0.10 . udp . 53 . 0 : 10.9.9.9 . 1, 10.96.0.10 . udp . 53 . 9 : 10.9.9.9 . 1 }",
			[]string{"ip: KUBE-SEP { 10.96.0.10 . udp . 53 . 0 : invalid IP . 0 }, KUBE-SEP { 10.96.0.10 . udp . 53 . 9 : invalid IP . 0 }"}},
		{"delete element ip kube-nft KUBE-CLUSTER-IP { 10.96.0.10 }\nadd element ip6 kube-nft KUBE-NODE-IP { 2001:db8::99 }\nadd table inet unrelated",
			[]string{"ip: KUBE-CLUSTER-IP { 10.96.0.10 }", "ip6: KUBE-NODE-IP { 2001:db8::99 }"}},
		{"flush set ip kube-nft KUBE-LOOP-BACK", []string{"ip: KUBE-LOOP-BACK { 10.128.1.2 . 10.128.1.2 }, KUBE-LOOP-BACK { 10.128.1.3 . 10.128.1.3 }"}},
		{"add element ip kube-nft KUBE-SERVICE-CIDR { 198.51.100.0/24 }", []string{"ip: set KUBE-SERVICE-CIDR"}},
		{"add element ip kube-nft KUBE-LOAD-BALANCER-SOURCE-CIDR { 192.0.2.80 . tcp . 80 . 198.51.100.0/24 }", []string{"ip: set KUBE-LOAD-BALANCER-SOURCE-CIDR"}},
		{"add element ip kube-nft KUBE-AFFINITY-default/sticky/tcp/http { 192.0.2.9 timeout 1s : 10.128.1.2 . 8080 }", []string{"ip: clients of default/sticky/tcp/http"}},
		{"insert rule ip kube-nft PREROUTING accept", []string{"ip: a rule in chain PREROUTING"}},
		{"flush chain ip6 kube-nft KUBE-MARK-MASQ", []string{"ip6: a rule in chain KUBE-MARK-MASQ"}},
		{"add chain ip kube-nft MINE", []string{"ip: chain MINE"}},
		{"add set ip kube-nft mine { type ipv4_addr; }", []string{"ip: set mine"}},
		{"add counter ip kube-nft mine", []string{"ip: an object of the table"}},
		{"delete table ip kube-nft", []string{"ip: the table"}},
		{"flush ruleset", []string{"ip6: the table"}},
	}
	generation := uint32(0)
	for _, tc := range cases {
		before, err := conn.Others(ctx)
		lab.Must(err)
		lab.Must(ns.NFT(tc.script))
		if after, err := conn.Others(ctx); err != nil || after == before {
			t.Errorf("%s: the number of others stays %d, %v", tc.script, before, err)
		}
		patience := 5 * time.Second
		if tc.want == nil {
			patience = 50 * time.Millisecond // what is heard later fails the next case
		}
		f, ok := next(patience)
		if d := cmp.Diff(tc.want, what(f)); d != "" || ok != (tc.want != nil) {
			t.Errorf("%s: heard %t (-want +got)\n%s", tc.script, ok, d)
		}
		if ok && (f.By.Name != "nft" || f.By.PID == 0 || f.Generation <= generation || f.Lost) {
			t.Errorf("%s: by %v, generation %d after %d, lost %t", tc.script, f.By, f.Generation, generation, f.Lost)
		}
		generation = max(generation, f.Generation)
	}
}

// TestWatchOurs: what we write ourselves is not reported and counts for nobody else's,
// nor is what expires.
func TestWatchOurs(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn := open(t, ns)
	s := withAffinity(nft.IPv4)
	lab.Must(conn.Reset(ctx, sample(s)))
	lab.Must(ns.NFT("add element ip kube-nft KUBE-AFFINITY-default/sticky/tcp/http { 192.0.2.9 timeout 200ms : 10.128.1.2 . 8080 }"))
	next := watched(t, conn)
	before, err := conn.Others(ctx)
	lab.Must(err)
	lab.Must(conn.Apply(ctx, change(s, nft.Delta{Add: []nft.Element{slot(50, "10.128.1.1:1")}})))
	lab.Must(conn.Apply(ctx, change(s, nft.Delta{Delete: []nft.Element{slot(50, "10.128.1.1:1")}})))
	if err := conn.Apply(ctx, change(s, nft.Delta{Delete: []nft.Element{slot(51, "10.128.1.1:1")}})); err == nil {
		t.Error("an element was deleted that is not there")
	}
	lab.Must(conn.Reset(ctx, sample(s)))
	if after, err := conn.Others(ctx); err != nil || after != before {
		t.Errorf("our own transactions count for others': %d after %d, %v", after, before, err)
	}
	// The entry expires and is collected; and it is longer than an answer may take.
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); {
		if f, ok := next(50 * time.Millisecond); ok {
			t.Errorf("reported: %v, lost: %t", what(f), f.Lost)
		}
	}
}

// TestWatchFlood: when more comes in than the socket holds, that is said.
func TestWatchFlood(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn := open(t, ns)
	s := nft.NewSchema(nft.IPv4, options(nft.IPv4))
	lab.Must(conn.Reset(ctx, sample(s)))
	release := make(chan struct{})
	listening := make(chan struct{})
	heard := make(chan nft.Foreign, 10_000)
	watching, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- conn.Watch(watching, func() { close(listening) }, func(f nft.Foreign) { <-release; heard <- f })
	}()
	<-listening
	other := open(t, ns)
	for round := range 3000 { // 100 elements each, about 15 kB of notifications
		var all []nft.Element
		for i := range 100 {
			e := slot(uint32(1000+i), "10.9.9.9:9")
			all = append(all, e)
		}
		d := nft.Delta{Add: all}
		if round%2 == 1 {
			d = nft.Delta{Delete: all}
		}
		lab.Must(other.Apply(ctx, change(s, d)))
	}
	close(release)
	lost := false
	for !lost {
		select {
		case f := <-heard:
			lost = f.Lost
		case <-time.After(5 * time.Second):
			t.Fatal("nothing is said of what was lost")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWatchQuiet: where nobody writes nothing is heard, however long that lasts.
func TestWatchQuiet(t *testing.T) {
	t.Parallel()
	lab := netlab.NewT(t)
	next := watched(t, open(t, lab.Namespace("node")))
	if f, ok := next(2500 * time.Millisecond); ok { // longer than an answer may take
		t.Fatalf("heard %+v", f)
	}
}
