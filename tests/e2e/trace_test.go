// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/nft/trace"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// tracing is a `kube-nft trace -o json` under way on the node.
type tracing struct{ *process }

// trace starts a trace on the node, and waits until it follows packets.
func (c *cluster) trace(t *testing.T, args ...string) tracing {
	t.Helper()
	all := append([]string{"trace", "-o", "json", "--for", "2m", "--packets", "0", "--rate", "100000"}, args...)
	p := startProcess(t, c.node.Command(t.Context(), program(t), all...))
	p.logs(t, "following packets")
	return tracing{p}
}

// packets are those that have been told of.
func (p tracing) packets(t *testing.T) (all []trace.Packet) {
	t.Helper()
	text := p.log.String()
	for line := range strings.Lines(text[:strings.LastIndex(text, "\n")+1]) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var one trace.Packet
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, one)
	}
	return all
}

// find waits for a packet behind the first so many.
func (p tracing) find(t *testing.T, what string, behind int, is func(*trace.Packet) bool) trace.Packet {
	t.Helper()
	var found trace.Packet
	err := netlab.Poll(patience, func() error {
		for _, one := range p.packets(t)[behind:] {
			if is(&one) {
				found = one
				return nil
			}
		}
		return fmt.Errorf("no packet %s was told of", what)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// answered finds the packet behind an answer: the server tells whom it saw. The first
// so many packets came before: of those that are masqueraded, two that go to different
// endpoints may be seen as coming from the same port.
func (p tracing) answered(t *testing.T, network string, dst netip.AddrPort, a netlab.Answer, before int) trace.Packet {
	t.Helper()
	return p.find(t, fmt.Sprintf("%s to %s that %s saw from %s", network, dst, a.Server, a.Source), before, func(one *trace.Packet) bool {
		seen := one.Source
		if one.SeenAs != nil {
			seen = *one.SeenAs
		}
		return one.Protocol == network && one.Destination == dst && seen == a.Source
	})
}

// to finds a packet to a destination, the last one.
func (p tracing) to(t *testing.T, network string, dst netip.AddrPort) trace.Packet {
	t.Helper()
	return p.find(t, fmt.Sprintf("%s to %s", network, dst), 0, func(one *trace.Packet) bool {
		return one.Protocol == network && one.Destination == dst
	})
}

// tells checks a story against who answered, and whom it saw.
func (c *cluster) tells(t *testing.T, p tracing, from *host, network string, dst netip.AddrPort, service string) trace.Packet {
	t.Helper()
	before := len(p.packets(t))
	a, err := from.ask(network, dst, patience)
	if err != nil {
		t.Fatal(err)
	}
	got := p.answered(t, network, dst, a, before)
	want := c.hostNamed(t, a.Server).at(familyOf(dst), targetPort)
	if got.Endpoint == nil || got.Endpoint.Address != want {
		t.Errorf("from %s to %s %s: %s answered, told of %+v", from.Name(), network, dst, want, got.Endpoint)
	}
	if got.Service == nil || got.Service.String() != service {
		t.Errorf("from %s to %s %s: told of Service %v, want %s", from.Name(), network, dst, got.Service, service)
	}
	if masqueraded := a.Source.Addr() != from.addrs[familyOf(dst)]; from != c.node && got.Masqueraded != masqueraded {
		t.Errorf("from %s to %s %s: masqueraded %v, told %v", from.Name(), network, dst, masqueraded, got.Masqueraded)
	}
	want1 := trace.Forwarded
	if from == c.node {
		want1 = trace.Sent
	}
	if got.Outcome != want1 {
		t.Errorf("from %s to %s %s: %s %s, want %s", from.Name(), network, dst, got.Outcome, got.Reason, want1)
	}
	return got
}

func (c *cluster) hostNamed(t *testing.T, name string) *host {
	t.Helper()
	for _, h := range []*host{c.a, c.b, c.r, c.s} {
		if h.Name() == name {
			return h
		}
	}
	t.Fatalf("no host %s", name)
	return nil
}

// TestTraceServed: a trace names the endpoint that answers, the frontend that led to
// it, and whom it saw, for every kind of frontend.
func TestTraceServed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	port := everyProtocol(80)
	web := everywhere("web", 1)
	web.Spec.Ports = append(web.Spec.Ports, port[2])
	c.write(t, "web.yaml", withSlices(web, c.a, c.b, c.r)...)
	c.write(t, "local.yaml", withSlices(externalLocal(everywhere("local", 2)), c.a, c.r)...)
	sticky := everywhere("sticky", 3)
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	c.write(t, "sticky.yaml", withSlices(sticky, c.a, c.b, c.r)...)
	c.write(t, "one.yaml", withSlices(service("one", 4, port...), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	p := c.trace(t)
	eachWay(t, func(t *testing.T, network string, f family) {
		name := func(s string) string { return "default/" + s + ":" + network }
		slots := make(map[uint32]bool)
		for range 4 {
			for _, from := range []*host{c.client, c.b, c.s, c.node} {
				got := c.tells(t, p, from, network, netip.AddrPortFrom(clusterIP(1)[f], 80), name("web"))
				if got.Endpoint.Slots != 3 {
					t.Errorf("told of %d endpoints of web, want 3", got.Endpoint.Slots)
				}
				slots[got.Endpoint.Slot] = true
			}
		}
		if len(slots) < 2 {
			t.Errorf("16 connections went to slots %v", slots)
		}
		// A pod that reaches itself, and another one that does not.
		one := netip.AddrPortFrom(clusterIP(4)[f], 80)
		if got := c.tells(t, p, c.a, network, one, name("one")); !got.Masqueraded {
			t.Errorf("a hairpin is not told of")
		}
		c.tells(t, p, c.b, network, one, name("one"))
		if network == "sctp" {
			return
		}
		for _, dst := range external(1, f) {
			c.tells(t, p, c.client, network, dst, name("web"))
			c.tells(t, p, c.b, network, dst, name("web"))
		}
		for what, dst := range external(2, f) {
			got := c.tells(t, p, c.client, network, dst, name("local"))
			if got.Masqueraded || !strings.Contains(got.Service.Set, "XLB") {
				t.Errorf("%s under the policy Local: %+v", what, got.Service)
			}
			c.tells(t, p, c.b, network, dst, name("local"))
		}
		for _, dst := range external(3, f) {
			c.tells(t, p, c.client, network, dst, name("sticky"))
			if got := c.tells(t, p, c.client, network, dst, name("sticky")); !got.Endpoint.Affinity {
				t.Errorf("a client that is remembered is told to be new: %+v", got)
			}
		}
	})
}

// TestTraceRefused: a trace says who ended a packet's way, and why: we, others, or
// nobody that has rules.
func TestTraceRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	tcp := func(name string, n int) *corev1.Service { return service(name, n, everyProtocol(80)[0]) }
	c.write(t, "empty.yaml", withSlices(withNodePort(tcp("empty", 1), 30080))...)
	c.write(t, "web.yaml", withSlices(tcp("web", 2), c.a)...)
	c.write(t, "local.yaml", withSlices(externalLocal(withIngress(withNodePort(tcp("local", 3), 30083), balancerIP(3)[ip4], balancerIP(3)[ip6])), c.r)...)
	c.write(t, "inside.yaml", withSlices(internalLocal(tcp("inside", 4)), c.r)...)
	c.write(t, "kept.yaml", withSlices(restricted(withIngress(tcp("kept", 5), balancerIP(5)[ip4], balancerIP(5)[ip6]), "10.9.0.0/16", "fd09::/16"), c.a)...)
	nowhere := both("10.77.0.%d", "fd77::%d", 7)
	far := withSlices(tcp("far", 6), c.a)
	far = eachEndpoint(far, func(_ int, e *discoveryv1.Endpoint) {
		a := nowhere[ip4]
		if strings.Contains(e.Addresses[0], ":") {
			a = nowhere[ip6]
		}
		e.Addresses = texts(a)
	})
	c.write(t, "far.yaml", far...)
	c.write(t, "barred.yaml", withSlices(tcp("barred", 7), c.b)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.Must(c.node.IP("route add unreachable 10.77.0.0/16", "route add unreachable fd77::/16"),
		c.node.NFT(fmt.Sprintf(`table inet guard {
			chain refuse {
				reject comment "not six"
			}
			chain pass {
				type filter hook forward priority 10
				ip daddr %s tcp dport 8080 drop comment "no way to b"
				ip6 daddr %s tcp dport 8080 jump refuse
			}
			chain moved {
				type nat hook prerouting priority -120
				ip daddr 203.0.113.99 tcp dport 80 dnat ip to %s
			}
		}`, c.b.addrs[ip4], c.b.addrs[ip6], c.a.at(ip4, targetPort))))
	p := c.trace(t)
	for _, f := range families {
		at := func(n int) netip.AddrPort { return netip.AddrPortFrom(clusterIP(n)[f], 80) }
		for _, tt := range []struct {
			name    string
			from    *host
			dst     netip.AddrPort
			outcome trace.Outcome
			service string
			reason  string
			ours    bool
		}{
			{"no endpoints", c.client, at(1), trace.Rejected, "default/empty:tcp", "has no endpoints", true},
			{"no endpoints, from the node", c.node, at(1), trace.Rejected, "default/empty:tcp", "has no endpoints", true},
			{"node port without endpoints", c.client, netip.AddrPortFrom(outside[f], 30080), trace.Rejected, "default/empty:tcp", "has no endpoints", true},
			{"unused port", c.b, netip.AddrPortFrom(clusterIP(2)[f], 81), trace.Rejected, "", "its Service has no port tcp 81", true},
			{"external Local", c.client, netip.AddrPortFrom(balancerIP(3)[f], 80), trace.Dropped, "default/local:tcp", "no endpoint on this node", true},
			{"node port Local", c.client, netip.AddrPortFrom(outside[f], 30083), trace.Dropped, "default/local:tcp", "no endpoint on this node", true},
			{"internal Local", c.b, at(4), trace.Dropped, "default/inside:tcp", "no endpoint on this node", true},
			{"source ranges", c.client, netip.AddrPortFrom(balancerIP(5)[f], 80), trace.Dropped, "default/kept:tcp", "is not in loadBalancerSourceRanges of default/kept:tcp", true},
			{"no route", c.client, at(6), trace.Lost, "default/far:tcp", "in routing", false},
		} {
			t.Run(tt.name+" "+f.String(), func(t *testing.T) {
				a, err := tt.from.ask("tcp", tt.dst, silence)
				if err == nil {
					t.Fatalf("answered by %s", a.Server)
				}
				got := p.to(t, "tcp", tt.dst)
				if got.Outcome != tt.outcome || !strings.Contains(got.Reason, tt.reason) {
					t.Errorf("%s: %q, want %s: %q", got.Outcome, got.Reason, tt.outcome, tt.reason)
				}
				if service := fmt.Sprint(got.Service); tt.service != "" && service != tt.service {
					t.Errorf("told of Service %s, want %s", service, tt.service)
				}
				if tt.ours != (got.By != nil && got.By.Ours) {
					t.Errorf("by %+v", got.By)
				}
			})
		}
		t.Run("endpoint without a route "+f.String(), func(t *testing.T) {
			got := p.to(t, "tcp", at(6))
			if got.Endpoint == nil || got.Endpoint.Address.Addr() != nowhere[f] {
				t.Errorf("endpoint %+v, want %s", got.Endpoint, nowhere[f])
			}
			if hints := strings.Join(got.Hints, "\n"); !strings.Contains(hints, "no route to "+nowhere[f].String()) {
				t.Errorf("hints: %q", hints)
			}
		})
		t.Run("a table of others "+f.String(), func(t *testing.T) {
			_, _ = c.client.ask("tcp", at(7), silence)
			got := p.to(t, "tcp", at(7))
			want := trace.Place{Table: "inet guard", Chain: "pass", Comment: "no way to b"}
			outcome := trace.Dropped
			if f == ip6 {
				want.Chain, want.Comment, outcome = "refuse", "not six", trace.Rejected
			}
			if got.By == nil {
				t.Fatalf("%+v", got)
			}
			want.Rule = got.By.Rule
			if *got.By != want || want.Rule == 0 || got.Outcome != outcome {
				t.Errorf("%s by %+v, want %s by %+v", got.Outcome, *got.By, outcome, want)
			}
			if got.Endpoint == nil || got.Endpoint.Address != c.b.at(f, targetPort) || !got.Masqueraded && f == ip4 && got.SeenAs != nil {
				t.Errorf("endpoint %+v", got.Endpoint)
			}
		})
	}
	t.Run("a translation of others", func(t *testing.T) {
		dst := netip.MustParseAddrPort("203.0.113.99:80")
		if a, err := c.client.ask("tcp", dst, patience); err != nil || a.Server != "a" {
			t.Fatal(a, err)
		}
		got := p.to(t, "tcp", dst)
		if got.Service != nil || got.Endpoint != nil || got.TranslatedTo == nil || *got.TranslatedTo != c.a.at(ip4, targetPort) {
			t.Errorf("%+v", got)
		}
		if text := fmt.Sprint(got.Steps); !strings.Contains(text, "table inet guard, chain moved") {
			t.Errorf("steps: %s", text)
		}
	})
	t.Run("no way to forward", func(t *testing.T) {
		c.Must(c.node.Sysctl("net.ipv4.ip_forward", "0"))
		dst := netip.AddrPortFrom(clusterIP(2)[ip4], 80)
		_, _ = c.client.ask("tcp", dst, silence)
		c.Must(c.node.Sysctl("net.ipv4.ip_forward", "1"))
		if got := p.to(t, "tcp", dst); got.Outcome != trace.Lost || got.Endpoint == nil {
			t.Errorf("%s %s", got.Outcome, got.Reason)
		}
	})
	t.Run("within this host", func(t *testing.T) {
		dst := netip.AddrPortFrom(outside[ip4], 7777)
		c.Serve(c.node.Namespace, "tcp", dst, "node")
		_, err := c.node.ask("tcp", dst, patience)
		c.Must(err)
		if got := p.to(t, "tcp", dst); got.Outcome != trace.Delivered || got.In != "" || got.Out != "lo" {
			t.Errorf("%+v", got)
		}
	})
}

// TestTraceTable: one trace at a time; its table goes with it however it ends; our
// own tables are not touched, and run does not notice.
func TestTraceTable(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	before, err := c.node.Ruleset()
	c.Must(err)
	p := c.trace(t, "default/web")
	with, err := c.node.Ruleset()
	c.Must(err)
	if !strings.Contains(with, "table inet kube-nft-trace") || !strings.Contains(with, "tcp dport 30080") {
		t.Errorf("no table that traces default/web:\n%s", with)
	}
	if text, code := command(t, c.node.Namespace, 0, "trace"); code != 1 || !strings.Contains(text, "another trace is under way") {
		t.Errorf("a second trace: code %d: %s", code, text)
	}
	if text, code := command(t, c.node.Namespace, 1, "trace"); code != 1 || !strings.Contains(text, "CAP_NET_ADMIN") {
		t.Errorf("without privileges: code %d: %s", code, text)
	}
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	for range 2 {
		_, err = c.client.ask("tcp", dst, patience)
		c.Must(err)
	}
	_, err = c.client.ask("tcp", c.a.at(ip4, targetPort), patience) // of no Service
	c.Must(err)
	p.to(t, "tcp", dst)
	for _, one := range p.packets(t) {
		if one.Destination != dst {
			t.Errorf("a packet to %s was followed, of no Service asked for", one.Destination)
		}
	}
	p.kill() // with SIGKILL
	c.Eventually(5*time.Second, func() error {
		after, err := c.node.Ruleset()
		if err == nil && withoutCounters(after) != withoutCounters(before) {
			err = fmt.Errorf("the ruleset is not as before the trace:\n%s", after)
		}
		return err
	})
	if n := c.proxy.count("somebody else"); n > 0 {
		t.Errorf("run noticed the trace %d times", n)
	}
}

// TestTraceEnds: a trace ends after so many packets or so long, and what it is asked
// wrongly it says.
func TestTraceEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a, c.r)...)
	if text, code := command(t, c.node.Namespace, 0, "trace", "default/web"); code != 1 || !strings.Contains(text, "is kube-nft run at work here?") {
		t.Errorf("without tables: code %d: %s", code, text)
	}
	c.run(t, "--cluster-cidr", clusterCIDR)
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	p := startProcess(t, c.node.Command(t.Context(), program(t), "trace", c.client.addrs[ip4].String(), dst.String()+"/tcp", "--packets", "2", "--for", "1m"))
	p.logs(t, "following packets of tcp from 192.168.1.2/32 to 10.96.0.1/32 to port 80")
	for range 3 {
		_, err := c.client.ask("tcp", dst, patience)
		c.Must(err)
	}
	if code := p.code(t); code != 0 {
		t.Errorf("code %d", code)
	}
	if n := p.count("=> forwarded to", "endpoint of default/web:tcp", "masqueraded as"); n != 2 {
		t.Errorf("%d packets were told of, want 2:\n%s", n, p.log.String())
	}
	t.Logf("\n%s", p.log.String())
	// All packets of a connection: conntrack leads those after the first.
	all := c.trace(t, dst.String()+"/tcp", "--all")
	conn, err := c.client.Dial(context.Background(), "tcp", dst)
	c.Must(err)
	a, err := conn.Ask(context.Background())
	c.Must(err, conn.Close())
	want := c.hostNamed(t, a.Server).at(ip4, targetPort)
	later := all.find(t, "after the first of a connection", 0, func(p *trace.Packet) bool { return !p.First })
	if later.TranslatedTo == nil || *later.TranslatedTo != want || later.Service != nil {
		t.Errorf("a later packet to %s: %+v", want, later)
	}
	all.kill()
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"default/none"}, 1, "no Service port default/none"},
		{[]string{"10.0.0.1", "10.0.0.2", "80"}, 2, "3 arguments"},
		{[]string{"10.0.0.300"}, 2, `destination "10.0.0.300"`},
		{[]string{"10.0.0.1:70000"}, 2, `port "70000" is none`},
		{[]string{"fd00::1", "10.0.0.1"}, 2, "different IP families"},
		{[]string{"--for", "0s"}, 2, "--for"},
		{[]string{"-o", "xml"}, 2, "text or json"},
		{[]string{"any", "[fd00::1]:80/udp", "--for", "10ms"}, 0, "no such packet came by"},
	} {
		text, code := command(t, c.node.Namespace, 0, append([]string{"trace"}, tt.args...)...)
		if code != tt.code || !strings.Contains(text, tt.says) {
			t.Errorf("trace %q: code %d: %s", tt.args, code, text)
		}
	}
}
