// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
)

// well is a host on which nothing is wrong.
func well() *Facts {
	return &Facts{
		Families: []Family{{Family: nft.IPv4, State: Healthy, MasqueradeBit: 14}, {Family: nft.IPv6, State: Healthy, MasqueradeBit: 14}},
		Running:  Running{State: Runs, Programmed: true},
		Params: map[string]string{
			ParamForward4: "1", ParamForward6: "1", ParamConntrackMax: "1000", ParamConntrackNow: "10", ParamBuckets: "250",
			ParamPortRange: "32768\t60999", ParamReserved: "", ParamOf(nft.IPv4, "eth0.5", "forwarding"): "1",
		},
		Interfaces: []Interface{{Name: "eth0.5", Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}},
	}
}

// TestCheck: each fact leads to its finding, and at the edges to none. Those about the
// rules of others are provoked in tests/e2e, where there are some.
func TestCheck(t *testing.T) {
	nodePort := Frontend{Proto: nft.TCP, Port: 30080, Service: "default/web"}
	for _, tt := range []struct {
		name   string
		change func(f *Facts)
		want   []string // severity, kind and mend
	}{
		{"well", func(*Facts) {}, nil},
		{"nothing is known", func(f *Facts) { *f = Facts{} }, nil},
		{"kernel", func(f *Facts) { f.Kernel = Kernel{"5.4.0", "Linux 5.4.0 is older than 5.13"} },
			[]string{"error kernel-lacks: " + kernelLacks.Mend}},
		{"interface of nobody's", func(f *Facts) { f.Params[ParamOf(nft.IPv4, "eth0.5", "forwarding")] = "0" },
			[]string{"warning forwarding-off: sysctl -w net/ipv4/conf/eth0.5/forwarding=1"}},
		{"interface with a dot", func(f *Facts) {
			f.Params[ParamOf(nft.IPv4, "eth0.5", "forwarding")] = "0"
			f.Routes = map[netip.Addr]Route{netip.MustParseAddr("10.0.0.1"): {Out: "eth0.5"}}
		}, []string{"error forwarding-off: sysctl -w net/ipv4/conf/eth0.5/forwarding=1"}},
		{"79% of connections", func(f *Facts) { f.Params[ParamConntrackNow] = "799" }, nil},
		{"80% of connections", func(f *Facts) { f.Params[ParamConntrackNow] = "800" },
			[]string{"warning conntrack-filling: sysctl -w net.netfilter.nf_conntrack_max=2000"}},
		{"95% of connections", func(f *Facts) { f.Params[ParamConntrackNow] = "950" },
			[]string{"error conntrack-full: sysctl -w net.netfilter.nf_conntrack_max=2000"}},
		{"long lists", func(f *Facts) {
			f.Params[ParamConntrackNow], f.Params[ParamBuckets] = "801", "100"
			f.Params[ParamConntrackMax] = "9000"
		},
			[]string{"warning conntrack-hash: sysctl -w net.netfilter.nf_conntrack_buckets=400"}},
		{"several with route_localnet", func(f *Facts) {
			f.Params[ParamOf(nft.IPv4, "all", "route_localnet")], f.Params[ParamOf(nft.IPv4, "eth0.5", "route_localnet")] = "1", "1"
		}, []string{"warning route-localnet: sysctl -w net.ipv4.conf.all.route_localnet=0 net/ipv4/conf/eth0.5/route_localnet=0"}},
		{"strict, and nothing lost", func(f *Facts) {
			f.Params[ParamOf(nft.IPv4, "all", "rp_filter")] = "1"
			f.Params[ParamOf(nft.IPv4, "eth0.5", "rp_filter")] = "0"
		}, nil},
		{"strict for all", func(f *Facts) {
			f.Params[ParamOf(nft.IPv4, "all", "rp_filter")], f.Params[ParamOf(nft.IPv4, "eth0.5", "rp_filter")] = "1", "0"
			f.ReversePathDrops = 3
		}, []string{"note rp-filter: sysctl -w net/ipv4/conf/eth0.5/rp_filter=2"}},
		{"loose", func(f *Facts) {
			f.Params[ParamOf(nft.IPv4, "all", "rp_filter")], f.Params[ParamOf(nft.IPv4, "eth0.5", "rp_filter")] = "1", "2"
			f.ReversePathDrops = 3
		}, nil},
		{"not installed", func(f *Facts) {
			f.Families[0].State, f.Families[1].State, f.Running = Missing, Missing, Running{State: NotRunning}
		}, []string{"error table-missing: " + tableMissing.Mend, "error table-missing: " + tableMissing.Mend}},
		{"94% of a set", func(f *Facts) { f.Families[0].Sizes[nft.Services], f.Families[0].Counts[nft.Services] = 1000, 949 }, nil},
		{"95% of a set", func(f *Facts) { f.Families[0].Sizes[nft.Services], f.Families[0].Counts[nft.Services] = 1000, 950 },
			[]string{"note set-filling: none is needed"}},
		{"not counted", func(f *Facts) { f.Families[0].Sizes[nft.Services], f.Families[0].Counts[nft.Services] = 1000, -1 }, nil},
		{"kube-proxy, perhaps elsewhere", func(f *Facts) { f.Proxies = []Process{{PID: 7, Name: "kube-proxy"}} },
			[]string{"warning kube-proxy-runs: " + kubeProxyRuns.Mend}},
		{"what kube-proxy has left", func(f *Facts) { f.Leftovers, f.LeftoverMode = []string{"nftables: table ip kube-proxy"}, "nftables" },
			[]string{"warning kube-proxy-left: kube-nft migrate take-over"}},
		{"an empty chain of kube-proxy", func(f *Facts) { f.Leftovers, f.LeftoversInert = []string{"iptables-nft: 1 chain with 0 rules"}, true },
			[]string{"note kube-proxy-left: kube-nft migrate take-over"}},
		{"any address", func(f *Facts) {
			f.Families[0].Frontends = []Frontend{nodePort}
			f.Listeners = []Listener{{Addr: netip.IPv6Unspecified(), Proto: nft.TCP, Port: 30080, Process: "nginx (process 9)"}}
		}, []string{"warning port-shadowed: " + nodePortListener.Mend}},
		{"another address, another protocol", func(f *Facts) {
			f.Families[0].Frontends = []Frontend{nodePort}
			f.Listeners = []Listener{{Addr: netip.MustParseAddr("192.0.2.9"), Proto: nft.TCP, Port: 30080}, {Addr: netip.IPv4Unspecified(), Proto: nft.UDP, Port: 30080}}
		}, nil},
		{"a process at a load balancer IP", func(f *Facts) {
			f.Families[0].Frontends = []Frontend{{Addr: netip.MustParseAddr("192.0.2.1"), Proto: nft.TCP, Port: 80, Service: "default/web"}}
			f.Listeners = []Listener{{Addr: netip.MustParseAddr("192.0.2.1"), Proto: nft.TCP, Port: 80}}
		}, []string{"warning port-shadowed: " + nodePortListener.Mend}},
		{"ports to reserve", func(f *Facts) {
			f.Families[0].Frontends = []Frontend{nodePort, {Proto: nft.TCP, Port: 40000}, {Proto: nft.UDP, Port: 40010}}
			f.Params[ParamReserved] = "8080,9000-9100"
		}, []string{"note port-range: sysctl -w net.ipv4.ip_local_reserved_ports=8080,9000-9100,40000-40010"}},
		{"NodeLocal DNSCache", func(f *Facts) {
			f.Families[0].ClusterIPs = []netip.Addr{netip.MustParseAddr("10.96.0.10")}
			f.Interfaces = append(f.Interfaces, Interface{Name: "nodelocaldns", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.96.0.10/32")}})
		}, nil},
		{"the worst first", func(f *Facts) {
			f.Families[0].Frontends = []Frontend{{Proto: nft.TCP, Port: 40000}}
			f.Params[ParamConntrackNow], f.Params[ParamForward4] = "800", "0"
		}, []string{"error forwarding-off: sysctl -w net.ipv4.ip_forward=1", "warning conntrack-filling: sysctl -w net.netfilter.nf_conntrack_max=2000",
			"note port-range: sysctl -w net.ipv4.ip_local_reserved_ports=40000"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := well()
			tt.change(f)
			var got []string
			for _, found := range Check(f) {
				got = append(got, fmt.Sprintf("%s %s: %s", found.Severity, found.ID, found.Mend))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestKinds: every kind says all that it is to say, once.
func TestKinds(t *testing.T) {
	var seen []string
	for _, k := range Kinds {
		if k.ID == "" || k.Sign == "" || k.Why == "" || k.Mend == "" || slices.Contains(seen, k.ID) || strings.ToLower(k.ID) != k.ID {
			t.Errorf("%+v", k)
		}
		seen = append(seen, k.ID)
	}
}
