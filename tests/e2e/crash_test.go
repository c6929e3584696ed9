// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestKill: kube-nft is killed again and again in the middle of its work. Whenever
// it starts again the tables become what one has that was never killed, a Service
// that does not change is served throughout, and established connections live.
func TestKill(t *testing.T) {
	rounds := 32
	if testing.Short() {
		rounds = 5
	}
	c := newCluster(t)
	steady := withNodePort(service("steady", 1, everyProtocol(80)...), 30080)
	c.write(t, "node.yaml", nodeObject(outside))
	c.write(t, "steady.yaml", withSlices(steady, c.a, c.b, c.r)...)
	shadow := c.Namespace("shadow")
	startProxy(t, shadow, c.manifests, "--cluster-cidr", clusterCIDR)
	c.run(t, "--cluster-cidr", clusterCIDR)

	c.lossless(t)
	conns, answers := c.establish(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	tallies := make(chan netlab.Tally)
	for _, f := range families {
		go func() {
			tallies <- netlab.Many(ctx, math.MaxInt, 2, func(i int) (netlab.Answer, error) {
				time.Sleep(2 * time.Millisecond) // leave some of the machine to what is tested
				return c.client.ask(networks[i%2], netip.AddrPortFrom(clusterIP(1)[f], 80), patience, netlab.Lossless())
			})
		}()
	}
	random := rand.New(rand.NewPCG(1, 2))
	bulk := bulkManifest(t)
	edits := 0
	for round := range rounds {
		kill := time.After(time.Duration(random.IntN(int(400 * time.Millisecond))))
		for editing := true; editing; {
			// Bursts with pauses, in which kube-nft sees to what was edited.
			pause := time.After(time.Duration(random.IntN(int(100 * time.Millisecond))))
			for range 1 + random.IntN(4) {
				c.edit(t, random)
				edits++
			}
			if random.IntN(4) == 0 {
				c.editBulk(t, bulk)
			}
			select {
			case <-kill:
				c.proxy.kill()
				editing = false
			case <-pause:
			}
		}
		c.start(t, "--cluster-cidr", clusterCIDR)
		if round%2 == 0 {
			continue // also killed while it starts
		}
		c.programmed(t)
		sameTables(t, c.node.Namespace, shadow)
		for i, conn := range conns {
			a, err := conn.Ask(t.Context())
			if err != nil || a.Server != answers[i].Server || a.Source != answers[i].Source {
				t.Fatalf("round %d: established connection got %v, %v, was %v", round, a, err, answers[i])
			}
		}
	}
	c.programmed(t)
	stop()
	asked := 0
	for range families {
		tally := <-tallies
		asked += tally.Answered() + tally.Failed()
		if tally.Failed() > 0 {
			t.Errorf("new connections failed: %v", tally)
		}
	}
	fresh := c.Namespace("fresh")
	startProxy(t, fresh, c.manifests, "--cluster-cidr", clusterCIDR)
	sameTables(t, c.node.Namespace, fresh)
	t.Logf("%d kills, %d edits, %d new connections to a steady Service, %d established ones kept", rounds, edits, asked, len(conns))
}

// establish opens connections to the Service number 1 from everywhere.
func (c *cluster) establish(t *testing.T) (conns []*netlab.Conn, answers []netlab.Answer) {
	t.Helper()
	for _, f := range families {
		for _, from := range []*host{c.client, c.node, c.b, c.s} {
			for _, dst := range []netip.AddrPort{netip.AddrPortFrom(clusterIP(1)[f], 80), netip.AddrPortFrom(outside[f], 30080)} {
				conn, err := from.Dial(t.Context(), "tcp", dst, netlab.Timeout(patience))
				c.Must(err)
				t.Cleanup(func() { conn.Close() })
				a, err := conn.Ask(t.Context())
				c.Must(err)
				conns, answers = append(conns, conn), append(answers, a)
			}
		}
	}
	return conns, answers
}

// flow opens connections to the Services 1 and 2 until it is stopped; none may
// fail. Stopping tells how many they were.
func (c *cluster) flow(t *testing.T) (stop func() int) {
	t.Helper()
	c.lossless(t)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	tallies := make(chan netlab.Tally)
	for _, f := range families {
		dsts := []netip.AddrPort{
			netip.AddrPortFrom(clusterIP(1)[f], 80),
			netip.AddrPortFrom(outside[f], 30080),
			netip.AddrPortFrom(clusterIP(2)[f], 80),
		}
		for _, dst := range external(2, f) {
			dsts = append(dsts, dst)
		}
		from := []*host{c.client, c.b, c.node, c.s}
		go func() {
			tallies <- netlab.Many(ctx, math.MaxInt, 2, func(i int) (netlab.Answer, error) {
				time.Sleep(time.Millisecond) // leave some of the machine to what is tested
				return from[i/12%4].ask(networks[i/6%2], dsts[i%6], patience, netlab.Lossless())
			})
		}()
	}
	return func() (asked int) {
		cancel()
		for range families {
			tally := <-tallies
			asked += tally.Answered() + tally.Failed()
			if tally.Failed() > 0 {
				t.Errorf("new connections failed: %v", tally)
			}
		}
		return asked
	}
}

// edit changes one of eight files: Services with up to five endpoints, of up to
// three ports, with or without node ports and external IPs, under all policies, or
// none at all.
func (c *cluster) edit(t *testing.T, random *rand.Rand) {
	t.Helper()
	i := random.IntN(8)
	file := fmt.Sprintf("edit-%d.yaml", i)
	if random.IntN(8) == 0 {
		if err := os.Remove(filepath.Join(c.manifests, file)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return
	}
	s := service(fmt.Sprintf("edit-%d", i), 10+random.IntN(10), everyProtocol(80)[:1+random.IntN(3)]...)
	if random.IntN(2) == 0 {
		withNodePort(s, uint16(31000+random.IntN(4)))
	}
	if random.IntN(2) == 0 {
		for f := range families {
			s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, externalIP(1 + random.IntN(4))[f].String())
		}
	}
	if s.Spec.Type == corev1.ServiceTypeNodePort && random.IntN(2) == 0 {
		withIngress(s, balancerIP(1 + random.IntN(4))[random.IntN(2)])
	}
	if random.IntN(3) == 0 {
		externalLocal(s)
	}
	if random.IntN(3) == 0 {
		internalLocal(s)
	}
	pods := []*host{c.a, c.b, c.r, c.s}
	random.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	c.write(t, file, withSlices(s, pods[:random.IntN(len(pods)+1)]...)...)
}

// bulkManifest describes so many endpoints that kube-nft needs several transactions
// to program them at once.
func bulkManifest(t *testing.T) string {
	t.Helper()
	var objects []any
	for i := range 2 {
		var ports []corev1.ServicePort
		for p := range 8 {
			ports = append(ports, servicePort(fmt.Sprint("p", p), "TCP", uint16(1000+p)))
		}
		s := service(fmt.Sprint("bulk-", i), 100+i, ports...)
		for f := range families {
			s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, externalIP(100 + i)[f].String())
		}
		objects = append(objects, s)
		for _, f := range families {
			one := slice(s, f)
			for e := range 700 {
				addr := both("10.129.%[2]d.%[1]d", "fd00:10:129::%[2]d:%[1]d", e%100, e/100)[f]
				one.Endpoints = append(one.Endpoints, discoveryv1.Endpoint{Addresses: texts(addr)})
			}
			objects = append(objects, one)
		}
	}
	return manifest(t, objects...)
}

// editBulk writes a manifest, or takes it away if it is there.
func (c *cluster) editBulk(t *testing.T, text string) {
	t.Helper()
	if err := os.Remove(filepath.Join(c.manifests, "bulk.yaml")); err == nil {
		return
	}
	c.writeText(t, "bulk.yaml", text)
}

// TestRestart: a restart with the same manifests writes nothing at all, whether
// kube-nft was killed or asked to end, and what changed meanwhile is made good.
func TestRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	random := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		c.edit(t, random)
	}
	web := service("web", 1, everyProtocol(80)...)
	c.write(t, "web.yaml", withSlices(web, c.s, c.r, c.b, c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	// The order of slots is now that of history, not of addresses.
	for _, pods := range [][]*host{{c.b, c.r}, {c.r}, {c.r, c.s}, {c.r, c.s, c.a}} {
		c.write(t, "web.yaml", withSlices(web, pods...)...)
		c.programmed(t)
	}
	for range 20 {
		c.edit(t, random)
	}
	c.programmed(t)
	c.restartsQuietly(t, "--cluster-cidr", clusterCIDR)

	// Edited while nobody watched.
	c.proxy.kill()
	c.write(t, "web.yaml", withSlices(web, c.a, c.b)...)
	c.start(t, "--cluster-cidr", clusterCIDR)
	c.programmed(t)
	eachWay(t, func(t *testing.T, network string, f family) {
		c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(1)[f], 80), masqueraded, "a", "b")
	})
}

// restartsQuietly kills kube-nft and starts it again, then stops it and starts it
// again, and checks that it writes nothing.
func (c *cluster) restartsQuietly(t *testing.T, flags ...string) {
	t.Helper()
	before := c.Run(c.node.Namespace, "nft", "list", "ruleset")
	events := startProcess(t, c.node.Command(t.Context(), "nft", "monitor"))
	defer events.kill()
	mark := func(name string) {
		c.Eventually(10*time.Second, func() error {
			c.Must(c.node.NFT("add table inet " + name + "\n"))
			c.Must(c.node.NFT("delete table inet " + name + "\n"))
			if !strings.Contains(events.log.String(), "delete table inet "+name) {
				return fmt.Errorf("nft monitor does not tell of table %s", name)
			}
			return nil
		})
	}
	mark("before")
	for _, end := range []func(){func() { c.proxy.kill() }, func() { c.proxy.stop(t) }} {
		end()
		c.start(t, flags...)
		c.proxy.logs(t, "everything is programmed")
	}
	mark("after")
	for line := range strings.Lines(events.log.String()) {
		if !strings.Contains(line, "table inet before") && !strings.Contains(line, "table inet after") && !strings.HasPrefix(line, "#") {
			t.Errorf("a restart wrote: %s", line)
		}
	}
	if after := c.Run(c.node.Namespace, "nft", "list", "ruleset"); withoutCounters(after) != withoutCounters(before) {
		t.Error("a restart changed the ruleset")
	}
}

// withoutCounters takes the values of counters out of a ruleset, and how long
// elements will be there.
func withoutCounters(ruleset string) string {
	var words []string
	fields := strings.Fields(ruleset)
	for i := 0; i < len(fields); i++ {
		words = append(words, fields[i])
		if (fields[i] == "packets" || fields[i] == "bytes" || fields[i] == "expires") && i+1 < len(fields) {
			i++
		}
	}
	return strings.Join(words, " ")
}
