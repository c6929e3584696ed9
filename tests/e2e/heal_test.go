// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/controller/source"
)

// probe asks a Service without a pause, and knows when it was answered.
type probe struct {
	stop func()

	mu   sync.Mutex
	sent []time.Time // when what was answered was sent
}

// probing asks from a host until stop is called, about once a millisecond, also while
// nobody answers. To ask more often would soon be to ask from a port again that the
// kernel knows a connection of.
func probing(from *host, dst netip.AddrPort) *probe {
	const askers, patience = 16, 20 * time.Millisecond
	p := &probe{}
	done := make(chan struct{})
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				begin := time.Now()
				if _, err := from.ask("udp", dst, patience); err == nil {
					p.mu.Lock()
					p.sent = append(p.sent, begin)
					p.mu.Unlock()
					time.Sleep(askers * time.Millisecond)
				}
			}
		})
	}
	p.stop = sync.OnceFunc(func() { close(done); all.Wait() })
	return p
}

// outage is the longest time in which nothing was sent that was answered, of what came
// after a time; the Service must be answered again.
func (p *probe) outage(since time.Time) time.Duration {
	p.mu.Lock()
	sent := slices.Clone(p.sent)
	p.mu.Unlock()
	slices.SortFunc(sent, time.Time.Compare)
	longest := time.Duration(0)
	last := since
	for _, at := range sent {
		if at.After(since) {
			longest = max(longest, at.Sub(last))
			last = at
		}
	}
	return max(longest, time.Since(last))
}

// vandalism is what others do to the tables, and what there is to repair after it.
var vandalism = []struct {
	name, script string
	kind         string // empty if nothing is
}{
	{"a frontend deleted", "delete element ip kube-nft KUBE-SERVICES { 10.96.0.1 . udp . 80 }", "elements"},
	{"a frontend led astray", "delete element ip kube-nft KUBE-SERVICES { 10.96.0.1 . udp . 80 }\n" +
		"add element ip kube-nft KUBE-SERVICES { 10.96.0.1 . udp . 80 : drop }", "elements"},
	{"its endpoint deleted", "delete element ip kube-nft KUBE-SEP { 10.96.0.1 . udp . 80 . 0 }", "elements"},
	{"all endpoints deleted", "flush map ip kube-nft KUBE-SEP", "elements"},
	{"a chain emptied", "flush chain ip kube-nft PREROUTING", "rules"},
	{"a rule inserted", "insert rule ip kube-nft PREROUTING drop", "rules"},
	{"a table deleted", "delete table ip kube-nft", "table"},
	{"everything deleted", "flush ruleset", "table"},
	{"a firewall reloaded, all its own", "add table inet firewalld\ndelete table inet firewalld\ntable inet firewalld {\n" +
		"chain input { type filter hook input priority filter + 10; policy accept; ct state established accept; }\n}", ""},
}

// TestHeal: whatever others do to the tables, Services are carried again in no time.
func TestHeal(t *testing.T) {
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	saved, err := c.node.Ruleset()
	c.Must(err)
	for _, tt := range append(vandalism, struct{ name, script, kind string }{
		// As `systemctl restart nftables` does after somebody has saved the ruleset.
		"an old ruleset loaded", "flush ruleset\n" + saved, "rules",
	}) {
		t.Run(tt.name, func(t *testing.T) {
			time.Sleep(1100 * time.Millisecond) // repairs one after the other wait longer
			before := c.proxy.count("put right")
			p := probing(c.client, dst)
			t.Cleanup(p.stop)
			time.Sleep(50 * time.Millisecond)
			begin := time.Now()
			c.Must(c.node.NFT(tt.script))
			if tt.kind != "" {
				c.proxy.logs(t, "put right", "kind="+tt.kind)
				c.Eventually(5*time.Second, func() error {
					if c.proxy.count("put right") == before {
						return errors.New("nothing was put right")
					}
					return nil
				})
			}
			time.Sleep(100 * time.Millisecond)
			p.stop()
			took := p.outage(begin)
			t.Logf("not served for %v", took.Round(time.Millisecond))
			if took > time.Second {
				t.Errorf("not served for %v", took)
			}
			if n := c.proxy.count("put right"); tt.kind == "" && n != before {
				t.Errorf("%d repairs of what is not ours", n-before)
			}
			for f := range families {
				for _, network := range networks {
					c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(1)[f], 80), eitherSource, "a")
				}
			}
		})
	}
	c.proxy.logs(t, "put right", `process="nft (pid `)
}

var healServices = flag.Int("heal-services", 500, "Services with 10 endpoints, of both families, in TestHealScale")

// TestHealScale: how long a Service among many is not served, and how long it takes
// until all is as it should be.
func TestHealScale(t *testing.T) {
	c := newCluster(t)
	svc := service("web", 1, everyProtocol(80)...)
	load := &source.Synthetic{Services: *healServices, Endpoints: 10, DualStack: true}
	_, programmed := c.control(t, func(sink source.Sink) {
		sink.SetService(svc.DeepCopy())
		for _, f := range families {
			sink.SetSlice(slice(svc, f, c.a))
		}
		for i := range load.Services {
			sink.SetService(load.Service(i))
			for _, s := range load.Slices(i) {
				sink.SetSlice(s)
			}
		}
	})
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	c.Eventually(time.Minute, func() error {
		_, err := c.client.ask("udp", dst, silence)
		return err
	})
	time.Sleep(2 * time.Second) // until it listens
	for _, tt := range vandalism {
		if tt.kind == "" {
			continue
		}
		_, before := programmed.now()
		p := probing(c.client, dst)
		t.Cleanup(p.stop)
		time.Sleep(50 * time.Millisecond)
		begin := time.Now()
		c.Must(c.node.NFT(tt.script))
		did := time.Since(begin)
		c.Eventually(30*time.Second, func() error {
			if _, now := programmed.now(); now == before {
				return errors.New("nothing was put right after: " + tt.name)
			}
			return nil
		})
		all := time.Since(begin)
		time.Sleep(50 * time.Millisecond)
		p.stop()
		took := p.outage(begin)
		t.Logf("%-22s not served for %4d ms, all put right after %4d ms (nft itself %d ms)", tt.name, took.Milliseconds(), all.Milliseconds(), did.Milliseconds())
		if took > 3*time.Second {
			t.Errorf("not served for %v", took)
		}
		time.Sleep(max(1100*time.Millisecond, 5*all)) // repairs one after the other wait longer
		c.Must(c.node.FlushConntrack())
	}
}

// TestHealLearned: what the kernel learns of clients, and forgets, is nobody's change.
func TestHealLearned(t *testing.T) {
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(sticky(service("web", 1, everyProtocol(80)...), 1), c.a, c.b)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for range 3 {
		for _, from := range []*host{c.client, c.node, c.b} {
			for f := range families {
				for _, network := range networks {
					if _, err := from.ask(network, netip.AddrPortFrom(clusterIP(1)[f], 80), patience); err != nil {
						t.Errorf("from %s: %v", from.Name(), err)
					}
				}
			}
		}
		time.Sleep(1500 * time.Millisecond) // entries expire, and are collected
	}
	metrics := c.get(t, "127.0.0.1:10249/metrics")
	for _, want := range []string{`kube_nft_drifts_total{ip_family="IPv4"} 0`, `kube_nft_drifts_total{ip_family="IPv6"} 0`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
	if n := c.proxy.count("were lost"); n > 0 {
		t.Error("notifications are said to be lost")
	}
}

// TestHealFight: somebody who goes on is answered, but not with all of a processor; who
// it is is said once. When it ends, Services are carried again, and health is as ever.
func TestHealFight(t *testing.T) {
	for _, tt := range []struct{ name, script string }{
		{"an element", "delete element ip kube-nft KUBE-CLUSTER-IP { 10.96.0.1 }"},
		{"the tables", "flush ruleset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a)...)
			c.run(t, "--cluster-cidr", clusterCIDR)
			used := cpu(t, c.proxy)
			begin := time.Now()
			done := 0
			for time.Since(begin) < 8*time.Second {
				if c.node.NFT(tt.script) == nil { // what is not there cannot be deleted
					done++
				}
				time.Sleep(5 * time.Millisecond)
				if got := c.get(t, "127.0.0.1:10256/readyz"); !strings.HasPrefix(got, "200") {
					t.Fatalf("/readyz says %q", got)
				}
			}
			used = cpu(t, c.proxy) - used
			t.Logf("%d changes in %v took %v of processor time, %d repairs", done, time.Since(begin).Round(time.Millisecond), used, c.proxy.count("put right"))
			if used > time.Since(begin)/5 {
				t.Errorf("%v of processor time in %v", used, time.Since(begin))
			}
			c.proxy.logs(t, "goes on changing our tables", `process="nft (pid `)
			if n := c.proxy.count("goes on changing our tables"); n != 1 {
				t.Errorf("it was said %d times", n)
			}
			end := time.Now()
			c.Eventually(20*time.Second, func() error {
				_, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(1)[ip4], 80), silence)
				rules, rulesErr := c.node.Ruleset()
				if rulesErr == nil && !strings.Contains(rules, "10.96.0.1,") && !strings.Contains(rules, "10.96.0.1 }") {
					rulesErr = errors.New("the cluster IP is missing")
				}
				return errors.Join(err, rulesErr)
			})
			t.Logf("all is well %v after the end", time.Since(end).Round(time.Millisecond))
		})
	}
}

// cpu is the processor time that a process has taken.
func cpu(t *testing.T, p *process) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // proc_pid_stat(5); the name may hold anything
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] { // utime and stime, fields 14 and 15 of all
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}
