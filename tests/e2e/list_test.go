// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/nft"
)

// listed is what `kube-nft list -o json` writes, as far as it is compared.
type listed struct {
	Tables []struct {
		Altered string
		Whole   bool
	}
	Items []listedPort
}

type listedPort struct {
	Namespace, Service, Port, Protocol, State string
	Connections                               uint64
	Affinity                                  *struct{ Clients int }
	Frontends                                 []struct {
		Kind, IPFamily, Address string
		Port                    uint16
		listedWay
		Others       *listedWay
		SourceRanges []string
	}
	Endpoints []struct {
		Address  netip.Addr
		ThisNode bool
	}
}

type listedWay struct {
	State, Masquerade string
	Packets           uint64
	Endpoints         []netip.AddrPort
}

// list runs kube-nft list on the node.
func (c *cluster) list(t *testing.T, args ...string) (l listed) {
	t.Helper()
	text, code := command(t, c.node.Namespace, 0, append([]string{"list", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(text), &l); code != 0 || err != nil {
		t.Fatalf("kube-nft list %v: code %d, %v\n%s", args, code, err, text)
	}
	return l
}

// servers names the pods that are endpoints.
func (c *cluster) servers(endpoints []netip.AddrPort) (all []string) {
	for _, e := range endpoints {
		for _, h := range []*host{c.a, c.b, c.r, c.s} {
			if slices.Contains(h.addrs[:], e.Addr()) {
				all = append(all, h.Name())
			}
		}
	}
	return all
}

// TestList: whoever list says is led somewhere is answered from there, under the
// address that it says, and who it says is not, is not; and it counts what was sent.
// kube-nft need not run for it.
func TestList(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "all.yaml", withSlices(everywhere("all", 1), c.a, c.r)...)
	c.write(t, "local.yaml", withSlices(externalLocal(everywhere("local", 2)), c.a, c.r, c.s)...)
	c.write(t, "elsewhere.yaml", withSlices(internalLocal(externalLocal(everywhere("elsewhere", 3))), c.r, c.s)...)
	c.write(t, "none.yaml", withSlices(everywhere("none", 4))...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.proxy.stop(t)
	before := c.list(t)
	sent := make(map[string]uint64)
	for _, p := range before.Items {
		if p.Service == "barrier" {
			continue
		}
		name, network := p.Service+"/"+p.Port, strings.ToLower(p.Protocol)
		for _, f := range p.Frontends {
			for _, from := range []*host{c.client, c.b} {
				way, dst := f.listedWay, c.frontend(t, f.IPFamily, f.Address, f.Port)
				if f.Others != nil && from == c.client {
					way = *f.Others
				}
				sent[name] += c.compareWay(t, from, network, dst, way)
			}
		}
	}
	for _, p := range c.list(t).Items {
		name := p.Service + "/" + p.Port
		i := slices.IndexFunc(before.Items, func(b listedPort) bool { return b.Service == p.Service && b.Port == p.Port })
		if n := p.Connections - before.Items[i].Connections; n != sent[name] {
			t.Errorf("%s: %d connections are counted, %d were sent", name, n, sent[name])
		}
	}
	for _, e := range before.Items[0].Endpoints {
		if here := slices.Contains(c.a.addrs[:], e.Address); e.ThisNode != here {
			t.Errorf("%s is on this node: %v", e.Address, e.ThisNode)
		}
	}
	if len(sent) != 8 {
		t.Errorf("%d Service ports were listed, want 8", len(sent))
	}
}

// frontend is where a client asks for a frontend.
func (c *cluster) frontend(t *testing.T, family, address string, port uint16) netip.AddrPort {
	t.Helper()
	if address != "" {
		return netip.AddrPortFrom(netip.MustParseAddr(address), port)
	}
	if family == ip6.String() {
		return netip.AddrPortFrom(outside[ip6], port)
	}
	return netip.AddrPortFrom(outside[ip4], port)
}

// compareWay sends packets where list says how they fare, and returns how many
// connections that must have made.
func (c *cluster) compareWay(t *testing.T, from *host, network string, dst netip.AddrPort, way listedWay) (made uint64) {
	t.Helper()
	switch way.State {
	case "refused":
		c.refused(t, from, network, dst)
		return 0
	case "dropped":
		c.silent(t, from, network, dst)
		return 0
	}
	sees := masqueraded
	if way.Masquerade == "nobody" || way.Masquerade == "foreign" && from != c.client {
		sees = own
	}
	want := c.servers(way.Endpoints)
	missing := slices.Clone(want)
	for made < 5 || len(missing) > 0 && made < 200 {
		a, err := from.ask(network, dst, patience)
		if err != nil {
			t.Error(err)
			return made
		}
		made++
		if !slices.Contains(want, a.Server) {
			t.Errorf("from %s to %s %s: answered by %s, listed are %v", from.Name(), network, dst, a.Server, want)
		}
		if err := c.checkSource(from, a, sees); err != nil {
			t.Errorf("from %s to %s %s: %v", from.Name(), network, dst, err)
		}
		missing = slices.DeleteFunc(missing, func(s string) bool { return s == a.Server })
	}
	if len(missing) > 0 {
		t.Errorf("from %s to %s %s: listed is %v, and never answered", from.Name(), network, dst, missing)
	}
	return made
}

// TestListFilters: what is asked for is listed, and what decides about clients is
// shown.
func TestListFilters(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a, c.r)...)
	c.write(t, "none.yaml", withSlices(service("none", 4, servicePort("", corev1.ProtocolTCP, 80)))...)
	sticky := restricted(withIngress(service("sticky", 2, servicePort("http", corev1.ProtocolTCP, 80)), balancerIP(2)[ip4]), "192.0.2.0/24", "198.18.0.0/15")
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	sticky.Namespace = "other"
	c.write(t, "sticky.yaml", withSlices(sticky, c.b)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for _, from := range []*host{c.client, c.a, c.r} {
		c.served(t, from, "tcp", netip.AddrPortFrom(clusterIP(2)[ip4], 80), eitherSource, "b")
	}
	for args, want := range map[string]string{
		"":                               "default/none default/web default/web kube-nft-e2e/barrier other/sticky",
		"-A":                             "default/none default/web default/web kube-nft-e2e/barrier other/sticky",
		"-n other":                       "other/sticky",
		"web":                            "default/web default/web",
		"default/web:udp":                "default/web",
		"--protocol UDP":                 "default/web",
		"--unserved":                     "default/none",
		"--address 10.128.0.3":           "other/sticky",
		"--address 10.128.0.3:8080":      "other/sticky",
		"--address fd00:10:96::1":        "default/web default/web",
		"--address 192.168.1.1:30001":    "default/web default/web",
		"--address 203.0.113.250":        "",
		"--sort-by connections -n other": "other/sticky",
	} {
		var got []string
		for _, p := range c.list(t, strings.Fields(args)...).Items {
			got = append(got, p.Namespace+"/"+p.Service)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("list %s: %v, want %s", args, got, want)
		}
	}
	p := c.list(t, "sticky").Items[0]
	if p.Affinity == nil || p.Affinity.Clients != 3 {
		t.Errorf("clients that are remembered: %+v, want 3", p.Affinity)
	}
	for _, f := range p.Frontends {
		if restricted := f.Kind == "External" && f.IPFamily == "IPv4"; restricted != (fmt.Sprint(f.SourceRanges) == "[192.0.2.0/24 198.18.0.0/15]") {
			t.Errorf("%s %s: source ranges %v", f.Kind, f.Address, f.SourceRanges)
		}
	}
	for args, want := range map[string][]string{
		"list":                 {"NAMESPACE", "CONNECTIONS", "web:tcp", "10.96.0.1:80 +1", "30001", "served"},
		"list -o wide":         {"AFFINITY", "3h0m0s, 3 clients", "192.0.2.0/24,198.18.0.0/15", "10.128.0.2:8080,10.128.1.2:8080", "[fd00:10:128::2]:8080"},
		"list default/web:tcp": {"Service:", "NodePort", "[*]:30001", "all but pods", "10.128.0.2:8080", "this", "other"},
		"list -o name":         {"default/none\n", "default/web:tcp\n", "other/sticky:http\n"},
		"list -o yaml web":     {"apiVersion: kube-nft/v1", "kind: ServicePortList", "masquerade: everybody"},
	} {
		text, code := command(t, c.node.Namespace, 0, strings.Fields(args)...)
		for _, w := range want {
			if !strings.Contains(text, w) || code != 0 {
				t.Errorf("%s (code %d) does not say %q:\n%s", args, code, w, text)
			}
		}
	}
	c.sameYAML(t)
	if text, _ := command(t, c.node.Namespace, 0, "list", "--no-headers", "-n", "other"); strings.Contains(text, "SERVICE") || strings.Contains(text, "other") {
		t.Errorf("headers, or the namespace that was asked for:\n%s", text)
	}
}

// sameYAML checks that YAML says the same as JSON, of some and of none.
func (c *cluster) sameYAML(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"list"}, {"list", "-n", "nobody"}} {
		j, _ := command(t, c.node.Namespace, 0, append(args, "-o", "json")...)
		y, _ := command(t, c.node.Namespace, 0, append(args, "-o", "yaml")...)
		var asJSON, asYAML any
		c.Must(json.Unmarshal([]byte(j), &asJSON), yaml.Unmarshal([]byte(y), &asYAML))
		if d := cmp.Diff(asJSON, asYAML); d != "" {
			t.Errorf("%v: JSON and YAML differ:\n%s", args, d)
		}
	}
}

// TestListFails: what is in the way is said, with its mend.
func TestListFails(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.proxy.stop(t)
	foreign := fmt.Sprintf("delete table ip kube-nft\nadd table ip kube-nft { comment %q; }", "mine")
	other := fmt.Sprintf("delete table ip kube-nft\nadd table ip kube-nft { comment %q; }", nft.Comment(nft.Version+1))
	for _, tc := range []struct {
		name, script string
		at           *host
		uid          uint32
		args         string
		want         []string
		code         int
	}{
		{"not root", "", c.node, 65534, "list", []string{"cannot be read", "run as root", "CAP_NET_ADMIN"}, 1},
		{"no table", "", c.client, 0, "list", []string{"no table kube-nft", "kube-nft run"}, 1},
		{"no such Service", "", c.node, 0, "list default/wep", []string{`no Service "default/wep"`}, 1},
		{"nothing found", "", c.node, 0, "list --unserved", []string{"No Service ports found."}, 0},
		{"usage", "", c.node, 0, "list -o csv --sort-by age --protocol icmp --address here --namespace a -A /web", []string{"--output", "--sort-by", "--protocol", "--address", "exclude each other", `"/web" names no Service`}, 2},
		{"a rule more", "add rule ip kube-nft KUBE-SERVICES counter", c.node, 0, "list", []string{"table ip kube-nft", "KUBE-SERVICES", "web:tcp"}, 0},
		{"a frontend of nobody", "add element ip kube-nft KUBE-NODEPORTS { tcp . 1 : goto KUBE-SVC-1 }", c.node, 0, "list", []string{"1 frontends that do not say whose"}, 0},
		{"asleep", "add table ip kube-nft { flags dormant; }", c.node, 0, "list", []string{"dormant"}, 0},
		{"another version", other, c.node, 0, "list", []string{"schema version 2", "web:tcp", "fd00:10:96::1"}, 1},
		{"somebody else's", foreign, c.node, 0, "list", []string{"not made by kube-nft", `"mine"`, "web:tcp"}, 1},
		{"only one family", "delete table ip kube-nft", c.node, 0, "list", []string{"web:tcp", "fd00:10:96::1"}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.script != "" {
				c.Must(c.node.NFT(tc.script))
			}
			text, code := command(t, tc.at.Namespace, tc.uid, strings.Fields(tc.args)...)
			for _, w := range tc.want {
				if !strings.Contains(text, w) {
					t.Errorf("it does not say %q:\n%s", w, text)
				}
			}
			if code != tc.code {
				t.Errorf("code %d, want %d:\n%s", code, tc.code, text)
			}
		})
	}
}
