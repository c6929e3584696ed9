// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { netlab.Main(m) }

// open returns a connection to a fresh namespace.
func open(t testing.TB, ns *netlab.Namespace) *kernel.Conn {
	t.Helper()
	c, err := kernel.Open(kernel.Options{NetNS: ns.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func options(f nft.Family) nft.Options {
	pods := netip.MustParsePrefix("10.128.0.0/16")
	if f == nft.IPv6 {
		pods = netip.MustParsePrefix("fd00:128::/48")
	}
	return nft.Options{MasqueradeBit: nft.DefaultMasqueradeBit, LocalPods: pods, Counters: true}
}

// address makes the n-th address of a small network of the family.
func address(f nft.Family, network string, n int) netip.Addr {
	if f == nft.IPv4 {
		prefix := map[string]string{"service": "10.96.0", "pod": "10.128.1", "public": "192.0.2", "node": "203.0.113"}[network]
		return netip.MustParseAddr(fmt.Sprintf("%s.%d", prefix, n))
	}
	prefix := map[string]string{"service": "fd00:96::", "pod": "fd00:128::", "public": "2001:db8::", "node": "2001:db8:113::"}[network]
	return netip.MustParseAddr(fmt.Sprintf("%s%d", prefix, n))
}

// sample is a table with an element of every kind.
func sample(f nft.Family) (chains []nft.Chain, elements []nft.Element) {
	add := func(set nft.Set, k nft.Key, v nft.Value) {
		elements = append(elements, nft.Element{Set: set, Key: k, Value: v})
	}
	service, public, node := address(f, "service", 10), address(f, "public", 80), address(f, "node", 7)
	pod := func(i int) netip.Addr { return address(f, "pod", i) }
	add(nft.NodeIPs, nft.Key{Addr: node}, nft.Value{})
	for i := range 3 {
		add(nft.Endpoints, nft.Key{Addr: service, Proto: nft.UDP, Port: 53, Slot: uint32(i)}, nft.Value{To: netip.AddrPortFrom(pod(i+2), 53)})
	}
	for i := range 2 {
		add(nft.Endpoints, nft.Key{Addr: public, Proto: nft.TCP, Port: 80, Slot: uint32(i)}, nft.Value{To: netip.AddrPortFrom(pod(i+2), 8080)})
		add(nft.NodePortEndpoints, nft.Key{Proto: nft.TCP, Port: 30080, Slot: uint32(i)}, nft.Value{To: netip.AddrPortFrom(pod(i+2), 8080)})
		add(nft.LoopBack, nft.Key{Addr: pod(i + 2)}, nft.Value{})
	}
	add(nft.ClusterIPs, nft.Key{Addr: service}, nft.Value{})
	add(nft.NoEndpoints, nft.Key{Addr: address(f, "service", 12), Proto: nft.SCTP, Port: 80},
		nft.Value{Verdict: nft.Chain{Kind: nft.Reject}, Comment: "default/empty:http"})
	add(nft.NoEndpointsNodePorts, nft.Key{Proto: nft.TCP, Port: 30081},
		nft.Value{Verdict: nft.Chain{Kind: nft.Reject}, Comment: "default/empty:http"})
	add(nft.NodePorts, nft.Key{Proto: nft.TCP, Port: 30080},
		nft.Value{Verdict: nft.Chain{Kind: nft.NodePort, N: 2}, Comment: "default/web:http"})
	add(nft.Services, nft.Key{Addr: service, Proto: nft.UDP, Port: 53},
		nft.Value{Verdict: nft.Chain{Kind: nft.Service, N: 3}, Comment: "kube-system/kube-dns:dns"})
	add(nft.Services, nft.Key{Addr: public, Proto: nft.TCP, Port: 80},
		nft.Value{Verdict: nft.Chain{Kind: nft.External, N: 2}, Comment: "default/web:http"})
	local := address(f, "public", 81)
	add(nft.LocalEndpoints, nft.Key{Addr: local, Proto: nft.TCP, Port: 80}, nft.Value{To: netip.AddrPortFrom(pod(2), 8080)})
	add(nft.LocalNodePortEndpoints, nft.Key{Proto: nft.TCP, Port: 30082}, nft.Value{To: netip.AddrPortFrom(pod(2), 8080)})
	add(nft.LocalServices, nft.Key{Addr: local, Proto: nft.TCP, Port: 80},
		nft.Value{Verdict: nft.Chain{Kind: nft.Local, N: 1}, Comment: "default/local:http"})
	add(nft.LocalServices, nft.Key{Addr: local, Proto: nft.TCP, Port: 81},
		nft.Value{Verdict: nft.Chain{Kind: nft.Drop}, Comment: "default/local:none-here"})
	add(nft.LocalNodePorts, nft.Key{Proto: nft.TCP, Port: 30082},
		nft.Value{Verdict: nft.Chain{Kind: nft.LocalNodePort, N: 1}, Comment: "default/local:http"})
	for i := range 2 {
		add(nft.Endpoints, nft.Key{Addr: local, Proto: nft.TCP, Port: 80, Slot: uint32(i)}, nft.Value{To: netip.AddrPortFrom(pod(i+2), 8080)})
		add(nft.NodePortEndpoints, nft.Key{Proto: nft.TCP, Port: 30082, Slot: uint32(i)}, nft.Value{To: netip.AddrPortFrom(pod(i+2), 8080)})
	}
	add(nft.Services, nft.Key{Addr: local, Proto: nft.TCP, Port: 80},
		nft.Value{Verdict: nft.Chain{Kind: nft.Shortcut, N: 2}, Comment: "default/local:http"})
	add(nft.NodePorts, nft.Key{Proto: nft.TCP, Port: 30082},
		nft.Value{Verdict: nft.Chain{Kind: nft.NodePortShortcut, N: 2}, Comment: "default/local:http"})
	return []nft.Chain{{Kind: nft.Service, N: 3}, {Kind: nft.External, N: 2}, {Kind: nft.NodePort, N: 2},
		{Kind: nft.Shortcut, N: 2}, {Kind: nft.NodePortShortcut, N: 2}, {Kind: nft.Local, N: 1}, {Kind: nft.LocalNodePort, N: 1}}, elements
}

func contents(chains []nft.Chain, elements []nft.Element) nft.Contents {
	var c nft.Contents
	for _, chain := range chains {
		c.PutChain(chain)
	}
	for _, e := range elements {
		c.Put(e)
	}
	return c
}

// lines writes contents as text, sorted.
func lines(c nft.Contents) []string {
	var all []string
	for _, e := range c.Sorted() {
		all = append(all, e.String())
	}
	for chain := range c.Chains {
		all = append(all, chain.String())
	}
	slices.Sort(all)
	return all
}

// TestGolden shows that the table made over netlink is the one that its text
// loads: both list alike, and so does the golden file.
func TestGolden(t *testing.T) {
	cases := []struct {
		name   string
		change func(*nft.Options)
	}{
		{"default", func(*nft.Options) {}},
		{"all-node-ports", func(o *nft.Options) { o.AllNodePorts, o.LocalPods = true, netip.Prefix{} }},
		{"masquerade-all", func(o *nft.Options) { o.MasqueradeAll, o.Counters, o.MasqueradeBit = true, false, 3 }},
		{"local-policy", func(o *nft.Options) { o.LocalPolicy = true }},
		{"local-policy-all-node-ports", func(o *nft.Options) {
			o.LocalPolicy, o.AllNodePorts, o.LocalPods = true, true, netip.Prefix{}
		}},
		{"odd-prefix", func(o *nft.Options) {
			o.LocalPods = netip.PrefixFrom(o.LocalPods.Addr(), o.LocalPods.Bits()-3).Masked()
		}},
	}
	for _, f := range nft.Families {
		for _, tc := range cases {
			t.Run(f.String()+"/"+tc.name, func(t *testing.T) {
				o := options(f)
				tc.change(&o)
				s := nft.NewSchema(f, o)
				chains, elements := sample(f)
				var script bytes.Buffer
				if err := nft.Format(&script, s, chains, slices.Values(elements)); err != nil {
					t.Fatal(err)
				}
				lab := netlab.NewT(t)
				loaded, made := lab.Namespace("loaded"), lab.Namespace("made")
				if err := loaded.NFT(script.String()); err != nil {
					t.Fatalf("nft refuses our text: %v\n%s", err, script.String())
				}
				conn := open(t, made)
				if err := conn.Preflight(context.Background(), s); err != nil {
					t.Fatal(err)
				}
				if err := conn.Reset(context.Background(), s, chains, slices.Values(elements)); err != nil {
					t.Fatal(err)
				}
				want, err := loaded.Ruleset()
				lab.Must(err)
				got, err := made.Ruleset()
				lab.Must(err)
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("netlink and nft -f make different tables (-nft +netlink):\n%s", d)
				}
				reloaded := lab.Namespace("reloaded")
				if err := reloaded.NFT(got); err != nil {
					t.Errorf("nft refuses what it listed: %v", err)
				}
				if again, err := reloaded.Ruleset(); err != nil || again != got {
					t.Errorf("reloaded, the table is another (-listed +reloaded), %v:\n%s", err, cmp.Diff(got, again))
				}
				golden(t, filepath.Join("testdata", tc.name+"."+f.String()+".nft"), script.Bytes())
				have, err := conn.Read(context.Background(), s)
				lab.Must(err)
				if d := cmp.Diff(lines(contents(chains, elements)), lines(have)); d != "" {
					t.Errorf("read back (-want +got):\n%s", d)
				}
			})
		}
	}
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}
