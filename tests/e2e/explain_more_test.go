// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestExplainRandom: Services of random kinds, with endpoints in random conditions, and
// random questions about them; packets fare as explain says.
func TestExplainRandom(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	c := newCluster(t)
	c.write(t, "node.yaml", inZone("here"))
	const services = 40
	for n := 1; n <= services; n++ {
		c.write(t, fmt.Sprintf("random-%d.yaml", n), c.randomService(random, n)...)
	}
	c.run(t, "--cluster-cidr", clusterCIDR)
	questions, fates := 100, make(map[string]int)
	if testing.Short() {
		questions = 20
	}
	froms := []*host{c.client, c.node, c.a, c.b}
	for range questions {
		f := families[random.IntN(2)]
		all := frontends(1+random.IntN(services), f)
		x := c.agree(t, froms[random.IntN(len(froms))], networks[random.IntN(2)], all[random.IntN(len(all))])
		if len(x.Fates) == 1 {
			fates[x.Fates[0]]++
		}
	}
	t.Logf("fates %v", fates)
}

// randomService makes a Service of every kind of frontend, number n.
func (c *cluster) randomService(random *rand.Rand, n int) []any {
	s := everywhere(fmt.Sprint("random-", n), n)
	one := func(of int) bool { return random.IntN(of) == 0 }
	if one(2) {
		s = externalLocal(s)
	}
	if one(3) {
		s = internalLocal(s)
	}
	if one(3) {
		s = restricted(s, "10.128.0.0/24", "fd00:1::/64")
	}
	var pods []*host
	for _, h := range []*host{c.a, c.b, c.r} {
		if one(2) {
			pods = append(pods, h)
		}
	}
	return eachEndpoint(withSlices(s, pods...), func(_ int, e *discoveryv1.Endpoint) {
		ready, terminating := !one(3), one(4)
		e.Conditions = discoveryv1.EndpointConditions{Ready: new(ready && !terminating), Serving: new(ready), Terminating: new(terminating)}
		if one(2) {
			e.Hints = zones([]string{"here", "there"}[random.IntN(2)])
		}
	})
}

// TestExplainAffinity: a client that is not known may go anywhere, and one that is goes
// where the kernel remembers it.
func TestExplainAffinity(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(sticky(everywhere("web", 1), 600), c.a, c.b, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for _, f := range families {
		dst := netip.AddrPortFrom(clusterIP(1)[f], 80)
		for _, from := range []*host{c.client, c.s, c.node} {
			before := c.agreeOnce(t, from, dst)
			if before.Remembered != nil || !before.Affinity || len(before.Endpoints) != 3 {
				t.Errorf("from %s, before: %+v", from.Name(), before)
			}
			after := c.agree(t, from, "tcp", dst)
			if after.Remembered == nil || len(after.Endpoints) != 1 || after.Remembered.TimeoutSeconds != 600 {
				t.Errorf("from %s, after: %+v", from.Name(), after)
			}
		}
	}
}

// agreeOnce asks explain, and then once.
func (c *cluster) agreeOnce(t *testing.T, from *host, dst netip.AddrPort) explained {
	t.Helper()
	x := c.explain(t, c.named(from, familyOf(dst)), dst.String())
	if _, err := from.ask("tcp", dst, patience); err != nil {
		t.Error(err)
	}
	return x
}

// TestExplainOutside: of somebody who is not known it is said which sources are let in,
// and endpoints see the node, or the client's address.
func TestExplainOutside(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(restricted(externalLocal(everywhere("web", 1)), "192.0.2.0/24", "2001:db8:9::/48"), c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for f, want := range []string{"192.0.2.0/24", "2001:db8:9::/48"} {
		x := c.explain(t, "outside", netip.AddrPortFrom(balancerIP(1)[f], 80).String())
		if len(x.OnlyFrom) != 1 || x.OnlyFrom[0].String() != want || len(x.Endpoints) != 1 || x.Endpoints[0].Sees.IsValid() {
			t.Errorf("a load balancer IP with source ranges: %+v", x)
		}
		if x := c.explain(t, "outside", netip.AddrPortFrom(clusterIP(1)[f], 80).String()); len(x.OnlyFrom) != 0 || len(x.Endpoints) != 2 || !x.Endpoints[0].Masqueraded {
			t.Errorf("a cluster IP: %+v", x)
		}
	}
}

// TestExplainOthers: what a table of somebody else drops on the way is told, and where.
func TestExplainOthers(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	if x := c.explain(t, "node", dst.String()); len(x.Others) != 0 {
		t.Errorf("without other tables: %+v", x.Others)
	}
	c.Must(c.node.NFT(`table inet wall {
	chain forward {
		type filter hook forward priority 10; policy accept;
		ip daddr ` + c.a.addrs[ip4].String() + ` tcp dport 8080 ip saddr 192.168.1.0/24 drop
		ip daddr 192.0.2.7 drop
	}
}`))
	x := c.explain(t, c.client.addrs[ip4].String(), dst.String())
	if len(x.Others) != 1 || x.Others[0].Action != "drop" || !x.Others[0].Sure || !strings.Contains(x.Others[0].Place, "inet wall forward") {
		t.Errorf("explained others as %+v", x.Others)
	}
	c.silent(t, c.client, "tcp", dst)
	// b's packets pass: they have another source.
	if x := c.explain(t, c.b.addrs[ip4].String(), dst.String()); len(x.Others) != 0 {
		t.Errorf("on the way of a pod: %+v", x.Others)
	}
	c.served(t, c.b, "tcp", dst, own, "a")
}

// serviceExplained is what explain says of a Service.
type serviceExplained struct {
	Known bool `json:"known"`
	Ports []struct {
		Family    string `json:"family"`
		Endpoints []struct {
			Address netip.AddrPort `json:"address"`
			Cluster struct {
				In  bool   `json:"in"`
				Why string `json:"reason"`
			} `json:"policyCluster"`
			Local struct {
				In  bool   `json:"in"`
				Why string `json:"reason"`
			} `json:"policyLocal"`
		} `json:"endpoints"`
	} `json:"ports"`
	Frontends []frontendExplained `json:"frontends"`
	Drift     []string            `json:"drift"`
	// NodePortsOn are addresses, by family.
	NodePortsOn map[string][]string `json:"nodePortsOn"`
}

type frontendExplained struct {
	Frontend string   `json:"frontend"`
	Elements []string `json:"elements"`
	Lost     string   `json:"lostTo"`
}

func (c *cluster) explainService(t *testing.T, args ...string) (x serviceExplained) {
	t.Helper()
	out, err := c.node.Run(program(t), append([]string{"explain", "-o", "json"}, args...)...)
	if err == nil {
		err = json.Unmarshal([]byte(out), &x)
	}
	if err != nil {
		t.Fatalf("explain %v: %v: %s", args, err, out)
	}
	return x
}

// TestExplainService: why each endpoint is in or out, who has an address that two
// Services claim, and in what the kernel differs, with and without a running kube-nft.
func TestExplainService(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "node.yaml", inZone("here"))
	conditions := []discoveryv1.EndpointConditions{
		{Ready: new(true)}, {Ready: new(false)}, {Ready: new(false), Serving: new(true), Terminating: new(true)}, {Ready: new(true)},
	}
	web := withSlices(externalLocal(everywhere("web", 1)), c.a, c.b, c.r, c.s)
	c.write(t, "web.yaml", eachEndpoint(web, func(i int, e *discoveryv1.Endpoint) {
		e.Conditions, e.Hints = conditions[i], zones([]string{"here", "here", "here", "there"}[i])
	})...)
	rival := everywhere("zz-rival", 2)
	rival.Spec.ExternalIPs = texts(externalIP(1)[ip4])
	c.write(t, "zz-rival.yaml", withSlices(rival, c.b)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	checkReasons := func(x serviceExplained) {
		t.Helper()
		var got []string
		for _, p := range x.Ports {
			if p.Family == "ip" {
				for _, e := range p.Endpoints {
					got = append(got, fmt.Sprintf("%t %s, %t %s", e.Cluster.In, e.Cluster.Why, e.Local.In, e.Local.Why))
				}
			}
		}
		want := []string{
			"true ready, true ready",
			"false not ready, false not ready",
			"false terminating, and others are ready, false on another node",
			"false meant for other zones, false on another node",
		}
		if want = append(want, want...); !slices.Equal(got, want) { // of TCP and UDP
			t.Errorf("reasons\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	x := c.explainService(t, "default/web")
	checkReasons(x)
	if len(x.Drift) > 0 {
		t.Errorf("drift: %q", x.Drift)
	}
	if on := x.NodePortsOn; len(on) != 2 || !slices.Equal(on["ip"], texts(outside[ip4])) || !slices.Equal(on["ip6"], texts(outside[ip6])) {
		t.Errorf("node ports are served on %v", on)
	}
	lost := c.explainService(t, "default/zz-rival")
	if !slices.ContainsFunc(lost.Frontends, func(f frontendExplained) bool {
		return strings.HasPrefix(f.Lost, "default/web:") && strings.HasPrefix(f.Frontend, externalIP(1)[ip4].String())
	}) {
		t.Errorf("nothing is said of the address that zz-rival does not get: %+v", lost.Frontends)
	}
	if p := c.explain(t, "node", netip.AddrPortFrom(externalIP(1)[ip4], 80).String()); len(p.Claims) != 2 || p.Claims[0].Service != "default/web" || !p.Claims[0].Granted {
		t.Errorf("claims %+v", p.Claims)
	}
	c.proxy.kill()
	c.drifts(t, checkReasons)
}

// drifts changes the table while no kube-nft runs.
func (c *cluster) drifts(t *testing.T, checkReasons func(serviceExplained)) {
	t.Helper()
	if x := c.explainService(t, "default/web"); x.Known || len(x.Frontends) == 0 || len(x.Frontends[0].Elements) == 0 {
		t.Errorf("without a running kube-nft: %+v", x)
	}
	flags := []string{"--manifests", c.manifests, "--hostname-override", "node-0", "--cluster-cidr", clusterCIDR, "default/web"}
	x := c.explainService(t, flags...)
	checkReasons(x)
	if len(x.Drift) > 0 {
		t.Errorf("drift from manifests: %q", x.Drift)
	}
	at := clusterIP(1)[ip4]
	c.Must(c.node.NFT(fmt.Sprintf("delete element ip kube-nft KUBE-SEP { %s . tcp . 80 . 0 }\ndelete element ip kube-nft KUBE-SERVICES { %s . udp . 80 }", at, at)))
	x = c.explainService(t, flags...)
	for _, want := range []string{"missing in the kernel: endpoint " + c.a.at(ip4, targetPort).String(), "missing in the kernel: KUBE-SERVICES { " + at.String() + " . udp . 80"} {
		if !slices.ContainsFunc(x.Drift, func(d string) bool { return strings.HasPrefix(d, want) }) {
			t.Errorf("drift %q, want %q in it", x.Drift, want)
		}
	}
	p := c.explain(t, append(flags[:6:6], "node", netip.AddrPortFrom(at, 80).String()+"/udp")...)
	if p.Fates[0] != "rejected" || len(p.Drift) == 0 {
		t.Errorf("a frontend that is missing: %+v", p)
	}
	c.refused(t, c.node, "udp", netip.AddrPortFrom(at, 80))
}

// TestExplainWrong: what is asked wrongly gets one error that says what to do.
func TestExplainWrong(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a)...)
	wrong := func(code int, words string, args ...string) {
		t.Helper()
		out, got := command(t, c.node.Namespace, 0, append([]string{"explain"}, args...)...)
		if got != code || !strings.Contains(out, words) || strings.Count(out, "kube-nft: ") != 1 {
			t.Errorf("explain %v: code %d: %s\nwant %d and %q", args, got, out, code, words)
		}
	}
	wrong(1, "no table kube-nft", "default/web")
	wrong(1, "no table kube-nft", "node", "10.96.0.1:80")
	c.run(t, "--cluster-cidr", clusterCIDR)
	wrong(1, "no Service default/nobody is served here", "default/nobody")
	wrong(2, "name the source before it", "10.96.0.1:80/tcp")
	wrong(2, "write NAMESPACE/SERVICE", "web")
	wrong(2, "does not know pods by name", "default/shop", "10.96.0.1:80")
	wrong(2, "no destination", "node", "10.96.0.1")
	wrong(2, "no destination", "node", "default/web")
	wrong(2, "different IP families", "fd00::1", "10.96.0.1:80")
	wrong(2, "write tcp, udp or sctp", "node", "10.96.0.1:80/icmp")
	wrong(2, "neither json nor yaml", "node", "10.96.0.1:80", "-o", "xml")
	wrong(2, "name a Service", "a", "b", "c")
	if data, err := os.ReadFile("/proc/self/uid_map"); err == nil && strings.Fields(string(data))[2] != "1" {
		if out, code := command(t, c.node.Namespace, 65534, "explain", "node", "10.96.0.1:80"); code != 1 || !strings.Contains(out, "run as root") {
			t.Errorf("without privileges: code %d: %s", code, out)
		}
	}
	for _, args := range [][]string{{"default/web"}, {"node", "10.96.0.1:80"}, {"outside", "10.96.0.9:99", "-o", "yaml"}} {
		if out, code := command(t, c.node.Namespace, 0, append([]string{"explain"}, args...)...); code != 0 || len(out) < 200 {
			t.Errorf("explain %v: code %d: %s", args, code, out)
		}
	}
}
