// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// feed is a source that a test drives: it hands out its sink.
type feed struct {
	first func(source.Sink)
	sink  chan source.Sink
}

func (f feed) Run(ctx context.Context, sink source.Sink) error {
	f.first(sink)
	sink.Synced()
	f.sink <- sink
	<-ctx.Done()
	return nil
}

// programming counts the elements that a controller has in the kernel.
type programming struct {
	mu       sync.Mutex
	elements int
	passes   int
	changed  chan struct{} // holds one word that something changed
	log      netlab.Output
}

func (p *programming) committed(c controller.Commit) {
	p.mu.Lock()
	p.elements += c.Added - c.Deleted
	p.passes++
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

func (p *programming) now() (elements, passes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.elements, p.passes
}

// await waits for a number of elements.
func (p *programming) await(t *testing.T, elements int) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		now, _ := p.now()
		if now == elements {
			return
		}
		select {
		case <-p.changed:
		case <-timeout:
			t.Fatalf("%d elements are programmed, want %d", now, elements)
		}
	}
}

// control runs a controller of this process on the node until the test ends.
func (c *cluster) control(t *testing.T, first func(source.Sink)) (source.Sink, *programming) {
	t.Helper()
	conn, err := kernel.Open(kernel.Options{NetNS: c.node.Fd()})
	c.Must(err)
	p := &programming{changed: make(chan struct{}, 1)}
	ctl := controller.New(controller.Config{
		NodeName:  "node-0",
		Rules:     controller.Rules{Options: map[nft.Family]nft.Options{nft.IPv4: {Counters: true}, nft.IPv6: {Counters: true}}},
		NodeIPs:   func() []netip.Addr { return outside[:] },
		Logger:    slog.New(slog.NewTextHandler(&p.log, nil)),
		Committed: p.committed,
	}, conn)
	src := feed{first, make(chan source.Sink, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- ctl.Run(ctx, src) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("controller: %v", err)
		}
		if t.Failed() {
			t.Logf("%s", &p.log)
		}
		c.Must(conn.Close())
	})
	select {
	case sink := <-src.sink:
		return sink, p
	case <-time.After(10 * time.Second):
		t.Fatal("the controller did not start its source")
		return nil, nil
	}
}

// TestHammer: endpoints come and go as fast as they can be programmed while 32
// clients open connections without a pause. Those that go keep listening, so
// every failure is a packet that met something that is neither before nor after
// a change.
func TestHammer(t *testing.T) {
	cycles := 1000
	if testing.Short() {
		cycles = 50
	}
	const most, clients = 10, 32
	c := newCluster(t)
	backends := c.backends(t, most)
	svc := withNodePort(service("web", 1, everyProtocol(80)[:2]...), 30080)
	set := func(sink source.Sink, n int) {
		for _, f := range families {
			sink.SetSlice(slice(svc, f, backends[:n]...))
		}
	}
	sink, programmed := c.control(t, func(sink source.Sink) {
		sink.SetService(svc.DeepCopy())
		set(sink, 1)
	})
	c.Eventually(10*time.Second, func() error {
		_, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(1)[ip6], 80), 100*time.Millisecond)
		return err
	})
	c.lossless(t)
	base, before := programmed.now()

	ctx, stop := context.WithCancel(t.Context())
	tallies := make(chan netlab.Tally, 8)
	var kinds int
	for _, from := range []*host{c.client, c.b} {
		for _, network := range networks[:2] {
			for _, f := range families {
				kinds++
				go func() {
					dst := netip.AddrPortFrom(clusterIP(1)[f], 80)
					tallies <- netlab.Many(ctx, math.MaxInt, clients/8, func(int) (netlab.Answer, error) {
						return from.ask(network, dst, patience, netlab.Lossless())
					})
				}()
			}
		}
	}
	begin := time.Now()
	steps := 0
	// In each of two families: two protocols, each at the ClusterIP and at the
	// node port, and one more for a pod on this node.
	const perEndpoint = 10
	for range cycles {
		for n := 2; n <= most; n++ {
			set(sink, n)
			programmed.await(t, base+(n-1)*perEndpoint)
			steps++
		}
		for n := most - 1; n >= 1; n-- {
			set(sink, n)
			programmed.await(t, base+(n-1)*perEndpoint)
			steps++
		}
	}
	took := time.Since(begin)
	stop()
	asked, hit := 0, make(map[string]bool)
	for range kinds {
		tally := <-tallies
		asked += tally.Answered() + tally.Failed()
		for s := range tally.Servers {
			hit[s] = true
		}
		if tally.Failed() > 0 {
			t.Errorf("failed connections: %v", tally)
		}
	}
	_, after := programmed.now()
	t.Logf("%d requests by %d clients during %d steps in %v, %d passes",
		asked, clients, steps, took.Round(time.Millisecond), after-before)
	if len(hit) != most {
		t.Errorf("%d of %d endpoints were hit", len(hit), most)
	}
}

// backends are endpoints on pod a, each on an address of its own. They serve TCP
// and UDP under the names a.0, a.1 and so on.
func (c *cluster) backends(t *testing.T, n int) (all []*host) {
	t.Helper()
	c.Must(
		c.node.Route(netip.MustParsePrefix(manyCIDR[ip4]), c.a.addrs[ip4]),
		c.node.Route(netip.MustParsePrefix(manyCIDR[ip6]), c.a.addrs[ip6]),
	)
	var prefixes []netip.Prefix
	for i := range n {
		h := &host{Namespace: c.a.Namespace, addrs: both("10.128.0.%d", "fd00:10:128::1:%d", 128+i), via: gateway}
		prefixes = append(prefixes, narrow(h.addrs)...)
		all = append(all, h)
	}
	c.Must(c.a.Addr("eth0", prefixes...))
	for i, h := range all {
		for _, f := range families {
			for _, network := range networks[:2] {
				c.Serve(h.Namespace, network, h.at(f, targetPort), fmt.Sprintf("a.%d", i))
			}
		}
	}
	return all
}
