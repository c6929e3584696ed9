// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// watch asks from clients, all the time, and checks that none leaves its endpoint
// but when the endpoint itself does.
type watch struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	asked  atomic.Int64
	now    atomic.Pointer[watched]

	mu   sync.Mutex
	errs []error
}

// watched is what may happen now: in odd epochs endpoints leave, in even ones some
// are gone.
type watched struct {
	epoch int
	gone  map[string]bool
}

func (c *cluster) watch(t *testing.T, clients []*host, port uint16, n int) *watch {
	t.Helper()
	c.lossless(t)
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{cancel: cancel}
	w.now.Store(&watched{})
	t.Cleanup(cancel)
	for _, f := range families {
		for _, network := range networks[:2] {
			dsts := append(frontends(n, f), netip.AddrPortFrom(clusterIP(n)[f], port))
			w.wg.Go(func() {
				last := make(map[*host]string)
				epoch := make(map[*host]int)
				for i := 0; ctx.Err() == nil; i++ {
					from, dst := clients[i%len(clients)], dsts[i%len(dsts)]
					before := w.now.Load()
					a, err := from.ask(network, dst, patience, netlab.Lossless())
					w.asked.Add(1)
					switch after := w.now.Load(); {
					case err != nil:
						w.fail(err)
					case before.gone[a.Server]:
						w.fail(fmt.Errorf("%s to %s %s: answered by %s, which has left", from.addrs[f], network, dst, a.Server))
					case last[from] != "" && last[from] != a.Server && epoch[from] == after.epoch && after.epoch%2 == 0:
						w.fail(fmt.Errorf("%s to %s %s: answered by %s, and by %s before", from.addrs[f], network, dst, a.Server, last[from]))
					case last[from] != "" && last[from] != a.Server && last[from] < "a.4":
						w.fail(fmt.Errorf("%s to %s %s: left %s, which stays", from.addrs[f], network, dst, last[from]))
					}
					last[from], epoch[from] = a.Server, before.epoch
					time.Sleep(time.Millisecond) // leave some of the machine to what is tested
				}
			})
		}
	}
	return w
}

func (w *watch) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.errs = append(w.errs, err)
}

// expect says that endpoints are about to leave, or have left.
func (w *watch) expect(gone ...string) {
	next := watched{epoch: w.now.Load().epoch + 1, gone: make(map[string]bool)}
	for _, name := range gone {
		next.gone[name] = true
	}
	w.now.Store(&next)
}

func (w *watch) stop(t *testing.T) {
	t.Helper()
	w.cancel()
	w.wg.Wait()
	for _, err := range w.errs[:min(len(w.errs), 10)] {
		t.Error(err)
	}
	t.Logf("%d connections, %d errors", w.asked.Load(), len(w.errs))
}

// TestAffinityLeaves: the clients of an endpoint that leaves go elsewhere at once and
// stay there; other clients do not move, no connection fails (A3.12).
func TestAffinityLeaves(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const stay, all = 4, 6
	backends := c.backends(t, all)
	web := sticky(everywhere("web", 1), forHours)
	c.write(t, "web.yaml", withSlices(web, backends...)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	clients := append(c.clients(t, 16), c.node, c.b, c.s)
	w := c.watch(t, clients, 80, 1)
	rounds := 15
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		for _, gone := range [][]string{{"a.5"}, {"a.4", "a.5"}, {"a.4"}, nil} {
			w.expect()
			var left []*host
			for i, h := range backends {
				if !slices.Contains(gone, fmt.Sprintf("a.%d", i)) {
					left = append(left, h)
				}
			}
			if round%2 == 1 {
				slices.Reverse(left)
			}
			c.write(t, "web.yaml", withSlices(web, left...)...)
			c.programmed(t)
			w.expect(gone...)
			for _, f := range families {
				at := c.settle(t, clients[:4], "tcp", frontends(1, f)...)
				c.unmoved(t, at, "tcp", frontends(1, f)...)
			}
		}
	}
	w.stop(t)
	if n := c.proxy.count("level=ERROR"); n > 0 {
		t.Errorf("%d errors in the log", n)
	}
}

// TestAffinityEmpty: a Service loses all of its endpoints and gets them back; then
// its clients are new ones (A3.12, A3.4).
func TestAffinityEmpty(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := sticky(everywhere("web", 1), forHours)
	c.run(t, "--cluster-cidr", clusterCIDR)
	clients := append(c.clients(t, 6), c.node, c.b)
	for range 3 {
		c.write(t, "web.yaml", withSlices(web, c.a, c.b, c.r)...)
		c.programmed(t)
		eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
			at := c.settle(t, clients, network, frontends(1, f)...)
			c.unmoved(t, at, network, frontends(1, f)...)
		})
		c.write(t, "web.yaml", withSlices(web)...)
		c.programmed(t)
		eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
			for _, dst := range frontends(1, f) {
				c.refused(t, c.client, network, dst)
			}
		})
	}
}

// unanswered opens UDP connections that nobody answers on, from a port of its own.
const unanswered = 7777

// TestAffinityTimeout: a client is forgotten when its last new connection is as long
// ago as the timeout says. Packets of connections that exist do not count, nor do
// those that nobody answers (A3.12).
func TestAffinityTimeout(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	backends := c.backends(t, 8)
	c.Must(c.a.NFT(fmt.Sprintf("table inet mute {\nchain output {\ntype filter hook output priority 0\nudp dport %d drop\n}\n}\n", unanswered)))
	const timeout = 3
	c.write(t, "web.yaml", withSlices(sticky(service("web", 1, everyProtocol(80)[:2]...), timeout), backends...)...)
	c.run(t)
	clients := c.clients(t, 12)
	eachWayOf(t, networks[:2], func(t *testing.T, network string, f family) {
		t.Parallel()
		dst := netip.AddrPortFrom(clusterIP(1)[f], 80)
		at := c.settle(t, clients, network, dst)
		for end := time.Now().Add(2 * timeout * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			c.unmoved(t, at, network, dst)
		}
		var conns []*netlab.Conn
		for _, from := range clients {
			opts := []netlab.Option{netlab.From(from.addrs[f])}
			if network == "udp" {
				opts = append(opts, netlab.FromPort(unanswered))
			}
			conn, err := from.Dial(t.Context(), network, dst, opts...)
			c.Must(err)
			defer conn.Close()
			conns = append(conns, conn)
		}
		for end := time.Now().Add((timeout + 1) * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			for _, conn := range conns {
				if network == "tcp" {
					_, err := conn.Ask(t.Context())
					c.Must(err)
				} else {
					_, err := conn.Write([]byte("?\n"))
					c.Must(err)
				}
			}
		}
		if at.moved(c.settle(t, clients, network, dst)) == 0 {
			t.Error("no client was forgotten")
		}
	})
}

// TestAffinityOtherTimeout: a timeout that changes concerns clients that are known
// already, too (A3.12).
func TestAffinityOtherTimeout(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	backends := c.backends(t, 8)
	dsts := []netip.AddrPort{netip.AddrPortFrom(clusterIP(1)[ip4], 80), netip.AddrPortFrom(clusterIP(1)[ip6], 80)}
	c.start(t)
	set := func(seconds int32) {
		c.write(t, "web.yaml", withSlices(sticky(service("web", 1, everyProtocol(80)[:2]...), seconds), backends...)...)
		c.programmed(t)
	}
	// Each of these times is seconds away from the next one that matters: a machine that
	// is busy takes a part of one to program a timeout and to ask all clients.
	set(4)
	clients := c.clients(t, 12)
	settle := func() (all [2]homes) {
		for _, f := range families {
			all[f] = c.settle(t, clients, "tcp", dsts[f])
		}
		return all
	}
	at := settle()
	set(forHours)
	time.Sleep(4500 * time.Millisecond)
	for _, f := range families {
		c.unmoved(t, at[f], "tcp", dsts[f])
	}
	time.Sleep(6 * time.Second)
	set(9) // longer ago for nobody yet
	for _, f := range families {
		c.unmoved(t, at[f], "tcp", dsts[f])
	}
	set(forHours)
	at = settle()
	time.Sleep(2500 * time.Millisecond)
	set(2) // longer ago for everybody
	now := settle()
	for _, f := range families {
		if at[f].moved(now[f]) == 0 {
			t.Errorf("%v: no client was forgotten", f)
		}
	}
}

// TestAffinitySwitch: affinity goes and comes under traffic; no connection fails, and
// established ones stay (A3.12, A3.13).
func TestAffinitySwitch(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)[:2]...), 30080), c.a, c.b, c.r)...)
	flips := func(on bool) {
		s := everywhere("flips", 2)
		if on {
			sticky(s, forHours)
		}
		c.write(t, "flips.yaml", withSlices(s, c.a, c.b, c.r)...)
	}
	flips(false)
	c.run(t, "--cluster-cidr", clusterCIDR)
	conns, answers := c.establish(t)
	clients := c.clients(t, 6)
	stop := c.flow(t)
	for range 10 {
		flips(true)
		c.programmed(t)
		for _, f := range families {
			at := c.settle(t, clients, "tcp", frontends(2, f)...)
			c.unmoved(t, at, "tcp", frontends(2, f)...)
		}
		flips(false)
		c.programmed(t)
		for _, f := range families {
			c.served(t, clients[0], "tcp", netip.AddrPortFrom(clusterIP(2)[f], 80), eitherSource, "a", "b", "r")
		}
		for i, conn := range conns {
			a, err := conn.Ask(t.Context())
			if err != nil || a.Server != answers[i].Server || a.Source != answers[i].Source {
				t.Fatalf("established connection got %v, %v, was %v", a, err, answers[i])
			}
		}
	}
	if n := c.proxy.count("table replaced"); n != 0 {
		t.Errorf("%d tables were replaced", n)
	}
	t.Logf("%d new connections", stop())
}
