// SPDX-License-Identifier: Apache-2.0

package ruleset_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft/ruleset"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// script breaks a script where nft wants it: behind each chain, and the table.
func script(text string) string { return strings.ReplaceAll(text, "; }", ";\n}\n") }

// list reads the tables of a namespace.
func list(t *testing.T, n *netlab.Namespace) (tables []*ruleset.Table) {
	t.Helper()
	err := n.Do(func() (err error) {
		tables, err = ruleset.List(context.Background())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// legacy reads the tables of iptables-legacy.
func legacy(t *testing.T, n *netlab.Namespace) (tables []*ruleset.Table) {
	t.Helper()
	err := n.Do(func() (err error) {
		tables, err = ruleset.ListLegacy("/proc")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tables
}

// names lists what there is, base chains with where they are.
func names(tables []*ruleset.Table) (all []string) {
	for _, table := range tables {
		all = append(all, table.String())
		for _, c := range table.Base() {
			policy := "accept"
			if c.Drop {
				policy = "drop"
			}
			line := fmt.Sprintf("  %s: %s %s %d %s", c.Name, c.Type, c.Hook, c.Priority, policy)
			if len(c.Devices) > 0 {
				line += " on " + strings.Join(c.Devices, ",")
			}
			all = append(all, line)
		}
	}
	return all
}

// TestList reads tables of every family, their flags and comments, and where their
// chains meet packets.
func TestList(t *testing.T) {
	l := netlab.NewT(t)
	n, other := l.Namespace("node"), l.Namespace("other")
	l.Must(netlab.Link(n, "eth0", other, "eth0"), n.NFT(script(`
table ip a { comment "of somebody"
	chain in { type filter hook input priority -5; policy drop; }
	chain pre { type nat hook prerouting priority -101; }
}
table ip6 b { flags dormant
	chain r { type route hook output priority mangle; }
}
table inet c {
	set s { type ipv4_addr; size 100; elements = { 10.0.0.1, 10.0.0.2 } }
	chain f { type filter hook forward priority 10; ip saddr @s drop; jump g; }
	chain g { reject; }
}
table arp d { chain o { type filter hook output priority 0; } }
table bridge e { chain f { type filter hook forward priority 0; } }
table netdev f { chain i { type filter hook ingress device "eth0" priority 0; } }
`)))
	tables := list(t, n)
	want := []string{
		"inet c", "  f: filter forward 10 accept",
		"ip a", "  in: filter input -5 drop", "  pre: nat prerouting -101 accept",
		"arp d", "  o: filter output 0 accept",
		"netdev f", "  i: filter ingress 0 accept on eth0",
		"bridge e", "  f: filter forward 0 accept",
		"ip6 b", "  r: route output -150 accept",
	}
	if diff := cmp.Diff(want, names(tables)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	a, b, c := find(t, tables, "ip a"), find(t, tables, "ip6 b"), find(t, tables, "inet c")
	if a.Comment != "of somebody" || a.Dormant || !b.Dormant || a.Owner != 0 {
		t.Errorf("comment %q, dormant %v and %v, owner %d", a.Comment, a.Dormant, b.Dormant, a.Owner)
	}
	if s := c.Sets["s"]; s == nil || s.Size != 100 || s.Count != 2 || s.KeyLen != 4 {
		t.Errorf("set is %+v", s)
	}
	r := c.Reach(c.Chains["f"])
	if c.Rules != 3 || r.Does[ruleset.Drop] != 1 || r.Does[ruleset.Reject] != 1 || !slices.Equal(r.Chains, []string{"f", "g"}) {
		t.Errorf("%d rules, reach %+v", c.Rules, r)
	}
}

func find(t *testing.T, tables []*ruleset.Table, name string) *ruleset.Table {
	t.Helper()
	for _, table := range tables {
		if table.String() == name {
			return table
		}
	}
	t.Fatalf("no table %s among %v", name, names(tables))
	return nil
}

// TestMarks reads which bits of the mark rules change and look at, of nft and of
// iptables.
func TestMarks(t *testing.T) {
	for _, tc := range []struct {
		name, nft            string
		iptables             []string
		sets, changes, reads uint32
	}{
		{name: "set a bit", nft: "meta mark set meta mark | 0x4000", sets: 0x4000, changes: 0x4000},
		{name: "clear bits", nft: "meta mark set meta mark & 0xffff00ff", changes: 0xff00},
		{name: "flip a bit", nft: "meta mark set meta mark ^ 0x10", changes: 0x10},
		{name: "set all", nft: "meta mark set 1", sets: 1, changes: 0xffffffff},
		{name: "from conntrack", nft: "meta mark set ct mark", changes: 0xffffffff},
		{name: "look at a bit", nft: "meta mark & 0x4000 == 0x4000 accept", reads: 0x4000},
		{name: "look at all", nft: "meta mark 7 accept"},
		{name: "look at several", nft: "meta mark & 0xf0 { 0x10, 0x20 } accept", reads: 0xf0},
		{name: "conntrack's is another", nft: "ct mark set 5; ct mark 7 accept"},
		{name: "iptables sets", iptables: []string{"-j", "MARK", "--set-xmark", "0x4000/0x4000"}, sets: 0x4000, changes: 0x4000},
		{name: "iptables or", iptables: []string{"-j", "MARK", "--or-mark", "0x20"}, sets: 0x20, changes: 0x20},
		{name: "iptables restores", iptables: []string{"-j", "CONNMARK", "--restore-mark", "--mask", "0xff00"}, changes: 0xff00},
		{name: "iptables saves", iptables: []string{"-j", "CONNMARK", "--save-mark"}},
		{name: "iptables looks", iptables: []string{"-m", "mark", "--mark", "0x10/0x30", "-j", "ACCEPT"}, reads: 0x30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := netlab.NewT(t)
			n := l.Namespace("node")
			name := "ip mangle"
			if tc.nft != "" {
				name = "ip t"
				l.Must(n.NFT(script("table ip t { chain OUTPUT { type filter hook output priority 0; " + tc.nft + "; } }")))
			} else {
				l.Run(n, "iptables-nft", append([]string{"-t", "mangle", "-A", "OUTPUT"}, tc.iptables...)...)
			}
			got, want := find(t, list(t, n), name).Chains["OUTPUT"].Mark, ruleset.Marks{Sets: tc.sets, Changes: tc.changes, Reads: tc.reads}
			if got != want {
				t.Errorf("marks are %#v, want %#v", got, want)
			}
		})
	}
}

// service is the first packet of a connection to an endpoint, after translation.
var service = ruleset.Packet{
	Family: ruleset.IPv4, In: "eth0", Out: "pods", Source: netip.MustParsePrefix("198.51.100.7/32"),
	Dest: netip.MustParsePrefix("10.0.2.2/32"), Proto: 6, DestPort: 8080, New: true, Translated: true,
}

// TestFate compares what is said of a packet with what becomes of it: a connection
// from a client through a router that translates, and has other rules besides.
func TestFate(t *testing.T) {
	for _, tc := range []struct {
		name, nft string
		iptables  []string
		want      string // lost, passes, or either
	}{
		{name: "no rule", want: "passes"},
		{name: "policy", nft: "type filter hook forward priority 5; policy drop;", want: "lost"},
		{name: "policy of another hook", nft: "type filter hook input priority 5; policy drop;", want: "passes"},
		{name: "drop all", nft: "type filter hook forward priority 5; drop;", want: "lost"},
		{name: "reject the port", nft: "type filter hook forward priority 5; tcp dport 8080 reject;", want: "lost"},
		{name: "drop another port", nft: "type filter hook forward priority 5; tcp dport 80 drop;", want: "passes"},
		{name: "ports in a set", nft: "type filter hook forward priority 5; tcp dport { 80, 8080 } drop;", want: "lost"},
		{name: "ports not in a set", nft: "type filter hook forward priority 5; tcp dport != { 80, 8080 } drop;", want: "passes"},
		{name: "ranges", nft: "type filter hook forward priority 5; tcp dport 8000-8100 accept; drop;", want: "passes"},
		{name: "ranges in a set", nft: "type filter hook forward priority 5; tcp dport { 22, 8000-8100 } drop;", want: "lost"},
		{name: "beside ranges in a set", nft: "type filter hook forward priority 5; tcp dport { 22, 8081-8100 } drop;", want: "passes"},
		{name: "only established", nft: "type filter hook forward priority 5; policy drop; ct state established,related accept;", want: "lost"},
		{name: "established in a map", nft: "type filter hook forward priority 5; policy drop; ct state vmap { established : accept, invalid : drop };", want: "lost"},
		{name: "translated", nft: "type filter hook forward priority 5; policy drop; ct status dnat accept;", want: "passes"},
		{name: "a network", nft: "type filter hook forward priority 5; policy drop; ip daddr 10.0.0.0/8 accept;", want: "passes"},
		{name: "another network", nft: "type filter hook forward priority 5; policy drop; ip daddr 10.0.0.0/23 accept;", want: "lost"},
		{name: "an interface", nft: "type filter hook forward priority 5; policy drop; oifname \"pod*\" accept;", want: "passes"},
		{name: "another interface", nft: "type filter hook forward priority 5; policy drop; iifname \"pod*\" accept;", want: "lost"},
		{name: "interfaces in a map", nft: "type filter hook forward priority 5; iifname vmap { \"eth0\" : drop, \"pods\" : accept };", want: "lost"},
		{name: "by a jump and back", nft: "type filter hook forward priority 5; policy drop; jump c; accept; } chain c { tcp dport 80 drop; return; ", want: "passes"},
		{name: "by a goto and back", nft: "type filter hook forward priority 5; policy drop; goto c; accept; } chain c { tcp dport 80 drop; ", want: "lost"},
		{name: "by a map to a chain", nft: "type filter hook forward priority 5; tcp dport vmap { 8080 : goto c }; accept; } chain c { drop; ", want: "lost"},
		{name: "may have returned", nft: "type filter hook forward priority 5; jump c; accept; } chain c { ip ttl vmap { 200 : return }; drop; ", want: "either"},
		{name: "returns by a map", nft: "type filter hook forward priority 5; jump c; accept; } chain c { tcp dport vmap { 8080 : return }; drop; ", want: "passes"},
		{name: "many ranges", nft: "type filter hook forward priority 5; ip daddr { 10.0.0.0/23, 10.0.2.1-10.0.2.3, 10.0.4.0/24, 250.0.0.0/8 } drop;", want: "lost"},
		{name: "between ranges", nft: "type filter hook forward priority 5; ip daddr { 10.0.0.0/23, 10.0.2.3-10.0.2.9, 10.0.4.0/24, 250.0.0.0/8 } drop;", want: "passes"},
		{name: "a pair in a set", nft: "type filter hook forward priority 5; ip daddr . tcp dport { 10.0.2.2 . 8080 } drop;", want: "either"},
		{name: "not understood", nft: "type filter hook forward priority 5; ip ttl 200 drop;", want: "either"},
		{name: "not understood, then accepted", nft: "type filter hook forward priority 5; policy drop; ip ttl 200 drop; accept;", want: "either"},
		{name: "bounded rate", nft: "type filter hook forward priority 5; policy drop; limit rate 1000/second accept;", want: "either"},
		{name: "iptables policy", iptables: []string{"-P FORWARD DROP"}, want: "lost"},
		{name: "iptables states", iptables: []string{"-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"}, want: "lost"},
		{name: "iptables translated", iptables: []string{"-P FORWARD DROP", "-A FORWARD -m conntrack --ctstate ESTABLISHED,DNAT -j ACCEPT"}, want: "passes"},
		{name: "iptables invalid", iptables: []string{"-A FORWARD -m conntrack --ctstate INVALID -j DROP"}, want: "passes"},
		{name: "iptables reject", iptables: []string{"-A FORWARD -p tcp -m tcp --dport 8080 -j REJECT"}, want: "lost"},
		{name: "iptables ports", iptables: []string{"-A FORWARD -p tcp -m multiport --dports 22,8000:8100 -j DROP"}, want: "lost"},
		{name: "iptables other ports", iptables: []string{"-A FORWARD -p tcp -m multiport ! --dports 22,8000:8100 -j DROP"}, want: "passes"},
		{name: "iptables interface", iptables: []string{"-P FORWARD DROP", "-A FORWARD -o pod+ -j ACCEPT"}, want: "passes"},
		{name: "iptables chain", iptables: []string{"-P FORWARD DROP", "-N C", "-A FORWARD -j C", "-A C -s 198.51.100.0/24 -j RETURN", "-A C -j ACCEPT"}, want: "lost"},
		{name: "iptables not understood", iptables: []string{"-A FORWARD -m addrtype --dst-type LOCAL -j DROP"}, want: "either"},
	} {
		if len(tc.iptables) > 0 {
			t.Run(tc.name+", legacy", func(t *testing.T) { testFate(t, "", "iptables-legacy", tc.iptables, tc.want) })
		}
		t.Run(tc.name, func(t *testing.T) { testFate(t, tc.nft, "iptables-nft", tc.iptables, tc.want) })
	}
}

func testFate(t *testing.T, nft, iptables string, lines []string, want string) {
	l := netlab.NewT(t)
	client, router, pod := l.Namespace("client"), l.Namespace("router"), l.Namespace("pod")
	l.Must(
		netlab.Link(client, "eth0", router, "eth0"), netlab.Link(router, "pods", pod, "eth0"),
		client.Addr("eth0", netip.MustParsePrefix("198.51.100.7/24")), router.Addr("eth0", netip.MustParsePrefix("198.51.100.1/24")),
		router.Addr("pods", netip.MustParsePrefix("10.0.2.1/24")), pod.Addr("eth0", netip.MustParsePrefix("10.0.2.2/24")),
		client.DefaultRoute(netip.MustParseAddr("198.51.100.1")), pod.DefaultRoute(netip.MustParseAddr("10.0.2.1")), router.Forward(),
		router.NFT(script("table ip service { chain pre { type nat hook prerouting priority -100; ip daddr 192.0.2.1 tcp dport 80 dnat to 10.0.2.2:8080; } }")),
	)
	l.Serve(pod, "tcp", netip.MustParseAddrPort("10.0.2.2:8080"), "pod")
	if nft != "" {
		l.Must(router.NFT(script("table inet t { chain f { " + strings.Replace(nft, "priority 5; ", "priority 5; ct state established accept; ", 1) + " }\n}\n")))
	}
	if len(lines) > 0 {
		l.Run(router, iptables, strings.Fields("-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT")...)
	}
	for _, line := range lines {
		l.Run(router, iptables, strings.Fields(line)...)
	}
	patience := 3 * time.Second
	if want == "lost" {
		patience = 300 * time.Millisecond
	}
	_, err := client.Ask(t.Context(), "tcp", netip.MustParseAddrPort("192.0.2.1:80"), netlab.Timeout(patience))
	passes, lost := true, false
	for _, table := range append(list(t, router), legacy(t, router)...) {
		for _, c := range table.Base() {
			if !table.Family.Sees(ruleset.IPv4) || c.Hook != "forward" {
				continue
			}
			f := table.Fate(c, service)
			_, _, is := f.Lost()
			lost = lost || is
			passes = passes && f.May[ruleset.Drop].Base == nil && f.May[ruleset.Reject].Base == nil
		}
	}
	got := map[[2]bool]string{{true, false}: "passes", {false, true}: "lost"}[[2]bool{passes, lost}]
	if got == "" {
		got = "either"
	}
	if got != want {
		t.Errorf("fate is %q, want %q; the connection: %v", got, want, err)
	}
	if (err == nil) != (want == "passes") && want != "either" {
		t.Errorf("the connection %v does not bear out %q", err, want)
	}
}

// TestLarge reads the rules of a proxy of the old kind, of which only the first are
// kept: 100,000 of them, in 25,000 chains.
func TestLarge(t *testing.T) {
	const chains = 25_000
	var text strings.Builder
	text.WriteString("table ip nat {\n")
	for i := range chains {
		fmt.Fprintf(&text, "chain KUBE-SVC-%d {\nip saddr 10.0.0.1 counter\nip daddr 10.0.0.2 counter\ntcp dport 80 meta mark set meta mark | 0x4000\n"+
			"meta l4proto tcp dnat to 10.1.%d.%d:80\n}\n", i, i/250, i%250)
	}
	text.WriteString("chain KUBE-SERVICES {\n")
	for i := range 2 * maxOfChain {
		fmt.Fprintf(&text, "ip daddr 10.96.%d.%d jump KUBE-SVC-%d\n", i/250, i%250, i)
	}
	text.WriteString("}\nchain PREROUTING {\ntype nat hook prerouting priority -100;\njump KUBE-SERVICES\n}\n}\n")
	l := netlab.NewT(t)
	n := l.Namespace("node")
	l.Must(n.NFT(text.String()))

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	tables := list(t, n)
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	nat := find(t, tables, "ip nat")
	t.Logf("%d rules in %v, %d kB kept", nat.Rules, took, int64(after.HeapAlloc-before.HeapAlloc)>>10)
	kept := 0
	for _, c := range nat.Chains {
		kept += len(c.Rules)
	}
	if nat.Rules != 4*chains+2*maxOfChain+1 || kept > 5000 || len(nat.Chains["KUBE-SERVICES"].Rules) > maxOfChain {
		t.Errorf("%d rules, %d kept", nat.Rules, kept)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("keeps %d bytes", grown)
	}
	r := nat.Reach(nat.Chains["PREROUTING"])
	if r.Does[ruleset.DNAT] != 2*maxOfChain || r.Mark.Sets != 0x4000 {
		t.Errorf("PREROUTING leads to %d dnat rules and sets %#x", r.Does[ruleset.DNAT], r.Mark.Sets)
	}
	// A Service whose rule is not kept: it may be translated, and that is all that is
	// said.
	to := ruleset.Packet{Family: ruleset.IPv4, Dest: netip.MustParsePrefix("10.96.7.200/32"), Proto: 6, DestPort: 80, New: true}
	if f := nat.Fate(nat.Chains["PREROUTING"], to); !f.Pass {
		t.Errorf("fate is %+v", f)
	}
}

// maxOfChain is how many rules of a chain are kept.
const maxOfChain = 1000
