// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

// need skips a test without a program; in CI that is a failure.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if os.Getenv("CI") != "" {
			t.Fatalf("no %s; `make tools` installs it", program)
		}
		t.Skipf("no %s; `make tools` installs it", program)
	}
}

// find is Find in a namespace.
func find(t *testing.T, n *netlab.Namespace) (found Found) {
	t.Helper()
	err := n.Do(func() (err error) { found, err = Find(context.Background()); return err })
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func remove(t *testing.T, n *netlab.Namespace, found *Found) {
	t.Helper()
	if err := n.Do(func() error { return found.Remove(context.Background()) }); err != nil {
		t.Fatal(err)
	}
}

// foreign is what others have in the tables that kube-proxy writes to, in between. %[1]s
// is an address.
const foreign = `*nat
:PREROUTING ACCEPT [7:70]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [8:80]
:POSTROUTING ACCEPT [9:90]
:CNI-HOSTPORT-SETMARK - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
[1:100] -A PREROUTING -p tcp -m tcp --dport 8080 -j REDIRECT --to-ports 80
[2:200] -A OUTPUT -d %[1]s -j ACCEPT
[3:300] -A POSTROUTING -s %[1]s -j MASQUERADE
[4:400] -A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
COMMIT
*filter
:INPUT ACCEPT [1:10]
:FORWARD DROP [2:20]
:OUTPUT ACCEPT [3:30]
:KUBE-FIREWALL - [0:0]
:MINE - [0:0]
[5:500] -A INPUT -m comment --comment "kubernetes service portals" -j DROP
[6:600] -A INPUT -g MINE
[7:700] -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
[8:800] -A FORWARD -j MINE
[9:900] -A OUTPUT -j KUBE-FIREWALL
[10:1000] -A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
[11:1100] -A MINE -p udp -m udp --dport 53 -j ACCEPT
[12:1200] -A MINE -s %[1]s -j RETURN
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
[13:1300] -A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
`

// proxys is what kube-proxy adds in iptables mode, first and at the end, and the policies
// again, which iptables-restore of legacy would count anew; %[1]s is a
// ClusterIP and %[2]s an endpoint.
const proxys = `*nat
:PREROUTING ACCEPT [7:70]
:OUTPUT ACCEPT [8:80]
:POSTROUTING ACCEPT [9:90]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-EXT-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SEP-BBBBBBBBBBBBBBBB - [0:0]
-I PREROUTING 1 -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING 1 -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d %[1]s -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SERVICES -d %[1]s -p sctp -m comment --comment "default/web:s cluster IP" -m sctp --dport 81 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web:http" -m tcp --dport 30080 -j KUBE-EXT-AAAAAAAAAAAAAAAA
-A KUBE-EXT-AAAAAAAAAAAAAAAA -j KUBE-MARK-MASQ
-A KUBE-EXT-AAAAAAAAAAAAAAAA -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SVC-AAAAAAAAAAAAAAAA -m comment --comment "default/web:http -> x" -m statistic --mode random --probability 0.5 -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SVC-AAAAAAAAAAAAAAAA -m comment --comment "default/web:http -> x" -j KUBE-SEP-BBBBBBBBBBBBBBBB
-A KUBE-SEP-BBBBBBBBBBBBBBBB -p tcp -m tcp -j DNAT --to-destination %[2]s:8080
COMMIT
*filter
:INPUT ACCEPT [1:10]
:FORWARD DROP [2:20]
:OUTPUT ACCEPT [3:30]
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-PROXY-CANARY - [0:0]
-I INPUT 1 -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-I FORWARD 1 -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-SERVICES -d %[1]s -p udp -m comment --comment "default/empty:dns has no endpoints" -m udp --dport 53 -j REJECT
-A KUBE-EXTERNAL-SERVICES -p udp -m comment --comment "default/empty:dns has no endpoints" -m addrtype --dst-type LOCAL -m udp --dport 30053 -j REJECT
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web health check node port" -m tcp --dport 32000 -j ACCEPT
COMMIT
*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
`

// backends of iptables, by family.
var backends = []struct {
	name            Backend
	family          nft.Family
	save, restore   string
	address, target string
}{
	{IPTablesNFT, nft.IPv4, "iptables-nft-save", "iptables-nft-restore", "10.96.0.10/32", "10.244.0.10"},
	{IPTablesNFT, nft.IPv6, "ip6tables-nft-save", "ip6tables-nft-restore", "fd00:10:96::a/128", "[fd00:10:244::a]"},
	{IPTablesLegacy, nft.IPv4, "iptables-legacy-save", "iptables-legacy-restore", "10.96.0.10/32", "10.244.0.10"},
	{IPTablesLegacy, nft.IPv6, "ip6tables-legacy-save", "ip6tables-legacy-restore", "fd00:10:96::a/128", "[fd00:10:244::a]"},
}

// saved lists everything, counters too, without the lines that say when.
func saved(t *testing.T, n *netlab.Namespace, program string) string {
	t.Helper()
	out, err := n.Run(program, "-c")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(out, "")
}

func restore(t *testing.T, n *netlab.Namespace, program, rules string) {
	t.Helper()
	cmd := n.Command(t.Context(), program, "--noflush", "--counters")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
}

// TestIPTables: what kube-proxy has added goes, and everybody else's is as it was, in
// its order and with its counters.
func TestIPTables(t *testing.T) {
	for _, b := range backends {
		t.Run(fmt.Sprintf("%s/%s", b.name, b.family), func(t *testing.T) {
			need(t, b.save)
			n := netlab.NewT(t).Namespace("node")
			if found := find(t, n); !found.Empty() || found.Mode() != "" {
				t.Fatalf("an empty namespace has %v", found.Lines())
			}
			restore(t, n, b.restore, fmt.Sprintf(foreign, b.address))
			before := saved(t, n, b.save)
			if found := find(t, n); !found.Empty() || found.Lines() != nil {
				t.Fatalf("rules of others are taken for kube-proxy's: %v", found.Lines())
			}
			restore(t, n, b.restore, fmt.Sprintf(proxys, b.address, b.target))
			found := find(t, n)
			addr := netip.MustParsePrefix(b.address).Addr()
			want := []Frontend{
				{b.family, nft.TCP, netip.Addr{}, 30080}, {b.family, nft.UDP, netip.Addr{}, 30053},
				{b.family, nft.UDP, addr, 53}, {b.family, nft.TCP, addr, 80}, {b.family, nft.SCTP, addr, 81},
			}
			if diff := cmp.Diff(sorted(want), found.Frontends(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("frontends -want +got:\n%s", diff)
			}
			if found.Mode() != "iptables" || len(found.Rules) != 3 || len(found.Lines()) != 3 {
				t.Errorf("mode %q, %v", found.Mode(), found.Lines())
			}
			if r := found.Rules[0]; r.Backend != b.name || len(r.Chains) != 8 || r.Jumps != 3 || r.InThem != 13 {
				t.Errorf("found %+v", r)
			}
			for _, r := range found.Rules {
				if r.Accepts != (r.Table == "filter") {
					t.Errorf("table %s: KUBE-FORWARD accepts what would be dropped: %t", r.Table, r.Accepts)
				}
			}
			remove(t, n, &found)
			if diff := cmp.Diff(before, saved(t, n, b.save)); diff != "" {
				t.Errorf("-before +after:\n%s", diff)
			}
			if found := find(t, n); !found.Empty() {
				t.Errorf("left: %v", found.Lines())
			}
			remove(t, n, &found) // of what is gone
			if diff := cmp.Diff(before, saved(t, n, b.save)); diff != "" {
				t.Errorf("removed twice, -before +after:\n%s", diff)
			}
		})
	}
}

// TestMadeAnew: rules that have got the handles of those that were found, in a table that
// was made anew meanwhile, stay; kube-proxy's go.
func TestMadeAnew(t *testing.T) {
	for _, b := range backends {
		if b.name != IPTablesNFT {
			continue
		}
		t.Run(b.family.String(), func(t *testing.T) {
			need(t, b.save)
			n := netlab.NewT(t).Namespace("node")
			const chain = "*nat\n:KUBE-SERVICES - [0:0]\n"
			restore(t, n, b.restore, chain+`-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`+"\nCOMMIT\n")
			found := find(t, n)
			if err := n.NFT("flush ruleset"); err != nil {
				t.Fatal(err)
			}
			others := "*nat\n"
			for port := range 20 { // as many as there are handles in use, and more
				others += fmt.Sprintf("-A PREROUTING -p tcp -m tcp --dport %d -j ACCEPT\n", port+1)
			}
			restore(t, n, b.restore, others+"COMMIT\n")
			before := saved(t, n, b.save)
			restore(t, n, b.restore, chain+"COMMIT\n")
			remove(t, n, &found)
			if diff := cmp.Diff(before, saved(t, n, b.save)); diff != "" {
				t.Errorf("-before kube-proxy's +after:\n%s", diff)
			}
		})
	}
}

// TestKept: a chain that somebody else's rule jumps to stays, and is said.
func TestKept(t *testing.T) {
	for _, b := range backends {
		t.Run(fmt.Sprintf("%s/%s", b.name, b.family), func(t *testing.T) {
			need(t, b.save)
			n := netlab.NewT(t).Namespace("node")
			restore(t, n, b.restore, fmt.Sprintf(proxys, b.address, b.target))
			restore(t, n, b.restore, `*nat
:MINE - [0:0]
-A MINE -p tcp -m tcp --dport 1 -j KUBE-MARK-MASQ
-A OUTPUT -j KUBE-SERVICES
COMMIT
`)
			found := find(t, n)
			lines := strings.Join(found.KeptLines(), "\n")
			for _, want := range []string{"chain KUBE-MARK-MASQ stays as it is: a rule of chain MINE", "chain KUBE-SERVICES stays, and is emptied: a rule of chain OUTPUT"} {
				if !strings.Contains(lines, want) {
					t.Errorf("no %q in\n%s", want, lines)
				}
			}
			remove(t, n, &found)
			after := saved(t, n, b.save)
			for text, want := range map[string]int{
				"-A MINE -p tcp -m tcp --dport 1 -j KUBE-MARK-MASQ": 1, "-A OUTPUT -j KUBE-SERVICES": 1, "-A KUBE-MARK-MASQ -j MARK": 1,
				"-A KUBE-SERVICES": 0, "KUBE-SVC": 0, "KUBE-NODEPORTS": 0, "service portals": 0,
			} {
				if got := strings.Count(after, text); got != want {
					t.Errorf("%q is there %d times, want %d:\n%s", text, got, want, after)
				}
			}
			if again := find(t, n); !again.Empty() || len(again.KeptLines()) != 2 {
				t.Errorf("left: %v, kept %v", again.Lines(), again.KeptLines())
			}
		})
	}
}

// TestForgotten: the chain of kubelet's name that kube-proxy makes in IPv6 goes while it
// is empty.
func TestForgotten(t *testing.T) {
	for _, b := range backends {
		t.Run(fmt.Sprintf("%s/%s", b.name, b.family), func(t *testing.T) {
			need(t, b.save)
			n := netlab.NewT(t).Namespace("node")
			restore(t, n, b.restore, "*filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\nCOMMIT\n")
			found := find(t, n)
			if got, want := found.Empty(), b.family == nft.IPv4; got != want {
				t.Errorf("nothing is left: %t, want %t: %v", got, want, found.Lines())
			}
			remove(t, n, &found)
			if after := saved(t, n, b.save); strings.Contains(after, "KUBE") != (b.family == nft.IPv4) {
				t.Errorf("after:\n%s", after)
			}
		})
	}
}

// TestNothingIsMade: to look makes no table of xtables.
func TestNothingIsMade(t *testing.T) {
	n := netlab.NewT(t).Namespace("node")
	find(t, n)
	err := n.Do(func() error {
		for _, f := range nft.Families {
			if names := tableNames(f); len(names) > 0 {
				return fmt.Errorf("tables %v of %s", names, f)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestTable: a table is kube-proxy's by its comment, or what it consists of, and not by
// its name alone.
func TestTable(t *testing.T) {
	n := netlab.NewT(t).Namespace("node")
	for _, tt := range []struct {
		name, script string
		want         int
		frontends    int
	}{
		{"somebody's", "table ip kube-proxy { chain c { accept; }\n}", 0, 0},
		{"commented", `table ip kube-proxy { comment "rules for kube-proxy"
			map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 10.96.0.10 . tcp . 80 : accept }
			}
			map service-nodeports { type inet_proto . inet_service : verdict; elements = { tcp . 30080 : accept }
			}
			}
			table ip6 kube-proxy { comment "rules for kube-proxy"
			map no-endpoint-services { type ipv6_addr . inet_proto . inet_service : verdict; elements = { fd00::a . sctp . 80 : drop }
			}
			}`, 2, 3},
		{"of an old nft", "table ip6 kube-proxy { chain service-endpoints-check { }\n}", 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := n.NFT("flush ruleset\n" + tt.script); err != nil {
				t.Fatal(err)
			}
			found := find(t, n)
			if len(found.Tables) != tt.want || len(found.Frontends()) != tt.frontends {
				t.Errorf("%v, %v", found.Lines(), found.Frontends())
			}
			remove(t, n, &found)
			rules, err := n.Ruleset()
			if err != nil || strings.Contains(rules, "kube-proxy") != (tt.want == 0) {
				t.Errorf("after, %v:\n%s", err, rules)
			}
		})
	}
}

// TestSets: ipsets go by name and type; others stay.
func TestSets(t *testing.T) {
	need(t, "ipset")
	n := netlab.NewT(t).Namespace("node")
	cmd := n.Command(t.Context(), "ipset", "restore")
	cmd.Stdin = strings.NewReader(`create KUBE-CLUSTER-IP hash:ip,port family inet comment
add KUBE-CLUSTER-IP 10.96.0.10,tcp:80 comment "default/web:http"
create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
add KUBE-NODE-PORT-TCP 30080
create KUBE-6-LOAD-BALANCER-SOURCE-CID hash:ip,port,net family inet6
create KUBE-LOOP-BACK hash:ip
create mine hash:ip
add mine 192.0.2.1
`)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ipset: %v: %s", err, out)
	}
	found := find(t, n)
	if want := []string{"KUBE-6-LOAD-BALANCER-SOURCE-CID", "KUBE-CLUSTER-IP", "KUBE-NODE-PORT-TCP"}; !slices.Equal(found.IPSets, want) || found.Mode() != "ipvs" {
		t.Errorf("mode %q, sets %q, want %q", found.Mode(), found.IPSets, want)
	}
	var ports map[nodePort]bool
	err := n.Do(func() error {
		s, err := openSocket()
		if err != nil {
			return err
		}
		defer s.close()
		_, ports, err = s.findSets()
		return err
	})
	if err != nil || len(ports) != 1 || !ports[nodePort{nft.TCP, 30080}] {
		t.Errorf("node ports %v, %v", ports, err)
	}
	remove(t, n, &found)
	left, err := n.Run("ipset", "list", "-n")
	if got := strings.Fields(left); err != nil || len(got) != 2 || !slices.Contains(got, "mine") || !slices.Contains(got, "KUBE-LOOP-BACK") {
		t.Errorf("left: %q, %v", got, err)
	}
}

// TestYield: new connections to an address of a device come from another one, and
// afterwards no route to it is left. The kernel may have no dummies, so a bridge is in
// kube-ipvs0's place.
func TestYield(t *testing.T) {
	l := netlab.NewT(t)
	n := l.Namespace("node")
	own := []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")}
	service := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::a")}
	l.Must(n.Bridge("eth0"), n.Addr("eth0", netip.PrefixFrom(own[0], 24), netip.PrefixFrom(own[1], 64)))
	routes := func() string {
		return l.Run(n, "ip", "route", "show", "table", "local") + l.Run(n, "ip", "-6", "route", "show", "table", "local")
	}
	l.Must(n.IP("link add kube-ipvs0 type bridge"), n.IP("addr add 10.96.0.10/32 dev kube-ipvs0"), n.IP("addr add fd00:10:96::a/128 dev kube-ipvs0 nodad"))
	for _, a := range service {
		l.Serve(n, "tcp", netip.AddrPortFrom(a, 80), "self")
		l.Eventually(5*time.Second, func() error {
			got, err := n.Ask(t.Context(), "tcp", netip.AddrPortFrom(a, 80))
			if err == nil && got.Source.Addr() != a {
				err = fmt.Errorf("before, %v is asked from %v, want itself", a, got)
			}
			return err
		})
	}
	index := 0
	l.Must(n.Do(func() error {
		link, err := net.InterfaceByName("kube-ipvs0")
		index = link.Index
		return err
	}))
	d := &Device{Index: index, Addrs: service, own: map[bool]netip.Addr{true: own[0], false: own[1]}}
	for range 2 {
		l.Must(n.Do(d.yield))
		for i, a := range service {
			if got := l.Ask(n, "tcp", netip.AddrPortFrom(a, 80)).Source.Addr(); got != own[i] {
				t.Errorf("%v is asked from %v, want %v", a, got, own[i])
			}
		}
	}
	conn, err := n.Dial(t.Context(), "tcp", netip.AddrPortFrom(service[0], 80), netlab.From(service[0]))
	l.Must(err)
	for _, want := range []int{2, 0} { // both ends are here
		got := -1
		l.Must(n.Do(func() (err error) { got, err = d.sockets(); return err }))
		if (got == 0) != (want == 0) {
			t.Errorf("%d sockets, want %d", got, want)
		}
		conn.Close()
		l.Must(n.Do(func() error {
			return netlab.Poll(5*time.Second, func() error {
				if got, err := d.sockets(); err != nil || got != 0 {
					return fmt.Errorf("%d sockets, %v", got, err)
				}
				return nil
			})
		}))
	}
	l.Must(n.Do(d.remove), n.Do(d.remove))
	for _, a := range service {
		if left := routes(); strings.Contains(left, a.String()) {
			t.Errorf("a route to %v is left:\n%s", a, left)
		}
	}
}

// TestAccounts: what kube-proxy's rules count in goes with them, and nothing else of
// nfacct.
func TestAccounts(t *testing.T) {
	for _, b := range backends {
		if b.family != nft.IPv4 {
			continue
		}
		t.Run(string(b.name), func(t *testing.T) {
			need(t, b.save)
			n := netlab.NewT(t).Namespace("node")
			do := func(typ uint16, flags uint16, attrs []byte) (names []string) {
				t.Helper()
				err := n.Do(func() error {
					s, err := openSocket()
					if err != nil {
						return err
					}
					defer s.close()
					s.seq++
					if err := s.send(request(nil, unix.NFNL_SUBSYS_ACCT<<8|typ, flags, s.seq, unix.AF_UNSPEC, attrs)); err != nil {
						return err
					}
					_, err = s.entries(func(body []byte) { names = append(names, wire.String(wire.First(body, accountName))) })
					return err
				})
				if err != nil {
					t.Fatalf("nfacct: %v", err)
				}
				return names
			}
			for _, name := range []string{"mine", accounts[0]} {
				do(0, unix.NLM_F_ACK|unix.NLM_F_CREATE, text(accountName, name))
			}
			restore(t, n, b.restore, `*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP
COMMIT
`)
			found := find(t, n)
			remove(t, n, &found)
			if got := do(1, unix.NLM_F_DUMP, nil); !slices.Equal(got, []string{"mine"}) {
				t.Errorf("accounts %q, want mine", got)
			}
		})
	}
}
