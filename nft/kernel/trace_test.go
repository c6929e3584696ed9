// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/nft/trace"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestTraceTable: the table of a trace lists like the one that nft makes of its text.
func TestTraceTable(t *testing.T) {
	lab := netlab.NewT(t)
	ours, theirs := lab.Namespace("ours"), lab.Namespace("theirs")
	for _, tt := range []struct {
		name   string
		filter trace.Filter
	}{
		{"anything", trace.Filter{Matches: []trace.Match{{}}, Rate: 10}},
		{"all of it", trace.Filter{Matches: []trace.Match{{}}, Rate: 10, All: true}},
		{"everything asked for", trace.Filter{Rate: 100, Matches: []trace.Match{
			{Src: netip.MustParsePrefix("10.128.0.0/16"), Dst: netip.MustParsePrefix("10.96.0.1/32"), Proto: nft.TCP, Port: 80},
			{Src: netip.MustParsePrefix("fd00:128::/44"), Dst: netip.MustParsePrefix("fd00:96::1/128"), Proto: nft.UDP, Port: 53},
			{Local: true, Proto: nft.SCTP, Port: 30080},
			{Dst: netip.MustParsePrefix("10.96.0.0/13")},
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab.Must(theirs.NFT("table " + trace.OwnTable.String() + "\ndelete table " + trace.OwnTable.String() + "\n" + tt.filter.Format()))
			tracer, err := kernel.Trace(kernel.Options{NetNS: ours.Fd()}, tt.filter)
			if err != nil {
				t.Fatal(err)
			}
			list := []string{"list", "table", "inet", trace.TableName}
			want, got := lab.Run(theirs, "nft", list...), lab.Run(ours, "nft", list...)
			// Whose it is no script can say.
			owner := regexp.MustCompile(` # progname[^\n]*|\tflags owner\n\n`)
			if diff := cmp.Diff(want, owner.ReplaceAllString(got, "")); diff != "" {
				t.Errorf("-nft's own +ours\n%s", diff)
			}
			lab.Must(tracer.Close())
			lab.Eventually(5*time.Second, func() error {
				if rules, err := ours.Ruleset(); err != nil || rules != "" {
					return errors.New("the table is still there: " + rules)
				}
				return nil
			})
		})
	}
}

// TestTraceUnwatched: who watches our tables does not hear of a trace, and there is
// one trace at a time.
func TestTraceUnwatched(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	c := open(t, ns)
	schema := nft.NewSchema(nft.IPv4, options(nft.IPv4))
	lab.Must(c.Reset(t.Context(), sample(schema)))
	next := watched(t, c)
	filter := trace.Filter{Matches: []trace.Match{{}}, Rate: 10}
	tracer, err := kernel.Trace(kernel.Options{NetNS: ns.Fd()}, filter)
	lab.Must(err)
	if second, err := kernel.Trace(kernel.Options{NetNS: ns.Fd()}, filter); !errors.Is(err, kernel.ErrTraced) {
		t.Errorf("a second trace: %v, %v", second, err)
	}
	lab.Must(tracer.Close())
	for range 10 {
		tracer, err := kernel.Trace(kernel.Options{NetNS: ns.Fd()}, filter)
		lab.Must(err)
		lab.Must(tracer.Close())
		lab.Eventually(5*time.Second, func() error {
			rules, err := ns.Ruleset()
			if strings.Contains(rules, trace.TableName) {
				err = errors.New("the table of the trace is still there")
			}
			return err
		})
	}
	// What the watch hears is in order: this is the first that it tells of.
	lab.Must(ns.NFT("add chain ip kube-nft last"))
	f, ok := next(5 * time.Second)
	if d := cmp.Diff([]string{"ip: chain last"}, what(f)); d != "" || !ok {
		t.Errorf("heard %t (-want +got)\n%s", ok, d)
	}
}

// TestLookups: base chains, rules and elements are found by what a trace says of them.
func TestLookups(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	c := open(t, ns)
	schema := nft.NewSchema(nft.IPv4, options(nft.IPv4))
	lab.Must(c.Reset(t.Context(), sample(schema)),
		ns.NFT("table inet guard {\n chain pass {\n type filter hook forward priority 10\n tcp dport 1 reject comment \"six words\"\n }\n chain plain {\n }\n}"))
	guard, ours := trace.Table{Family: trace.Inet, Name: "guard"}, trace.Table{Family: nft.IPv4, Name: nft.TableName}
	for _, tt := range []struct {
		table trace.Table
		chain string
		want  kernel.BaseChain
		ok    bool
	}{
		{guard, "pass", kernel.BaseChain{Hook: "forward", Type: "filter", Priority: 10}, true},
		{guard, "plain", kernel.BaseChain{}, false},
		{guard, "none", kernel.BaseChain{}, false},
		{trace.Table{Family: trace.Inet, Name: "none"}, "pass", kernel.BaseChain{}, false},
		{ours, "PREROUTING", kernel.BaseChain{Hook: "prerouting", Type: "nat", Priority: -100}, true},
	} {
		got, ok, err := c.BaseChain(tt.table, tt.chain)
		if err != nil || ok != tt.ok || got != tt.want {
			t.Errorf("%s %s: %+v, %v, %v", tt.table, tt.chain, got, ok, err)
		}
	}
	handle := uint64(0)
	for n := range uint64(10) {
		if r, ok, err := c.Rule(guard, "pass", n); err != nil {
			t.Error(err)
		} else if ok {
			if handle = n; r.Comment != "six words" || !r.Rejects {
				t.Errorf("rule %d: %+v", n, r)
			}
		}
	}
	if handle == 0 {
		t.Error("the rule is not found")
	}
	key := nft.Key{Addr: address(nft.IPv4, "service", 10), Proto: nft.UDP, Port: 53}
	e, ok, err := c.Frontend(nft.IPv4, nft.Services, key)
	if err != nil || !ok || e.Value.Verdict != (nft.Chain{Kind: nft.Service, N: 3}) {
		t.Fatalf("frontend: %v, %v, %v", e, ok, err)
	}
	slots, err := c.Slots(nft.IPv4, e)
	if err != nil || len(slots) != 3 || slots[2].Value.To.Addr() != address(nft.IPv4, "pod", 4) {
		t.Errorf("slots: %v, %v", slots, err)
	}
	key.Port = 54
	if e, ok, err := c.Frontend(nft.IPv4, nft.Services, key); err != nil || ok {
		t.Errorf("a frontend that is not there: %v, %v, %v", e, ok, err)
	}
}
