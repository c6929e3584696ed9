// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestSourceRangesChurn: ranges become broad and narrow and endpoints come and go, as
// fast as they can be programmed. Who is in none of the ranges never gets one packet
// through nor a refusal, who is in all of them is always served, and established
// connections live on (A1.12, A3.13).
func TestSourceRangesChurn(t *testing.T) {
	t.Parallel()
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	c := newCluster(t)
	clients := c.clients(t, 4)
	always, broadly, never := clients[0], clients[1], clients[3]
	ranges := [][]string{
		{"192.168.1.100/31", "fd00:1::100/127"},
		{"192.168.1.100/32", "fd00:1::100/128"},
		{"192.168.1.100/32", "192.168.1.101/32", "10.0.0.0/8", "fd00:1::100/128", "fd00:1::101/128", "2001:db8::/32"},
		{"192.168.1.100/32", "10.0.0.0/9", "10.128.0.0/9", "fd00:1::100/128", "2001:db8::/33"},
	}
	broad := []bool{true, false, true, false}
	// Service 1 is for those who are let in. What is meant for Service 2 arrives at a
	// server of its own.
	one, two := everywhere("one", 1), everywhere("two", 2)
	secret := &host{Namespace: c.b.Namespace, addrs: c.b.addrs, via: gateway}
	var servers []*netlab.Server
	for _, f := range families {
		for _, network := range networks[:2] {
			servers = append(servers, c.Serve(secret.Namespace, network, secret.at(f, 9090), "secret"))
		}
	}
	set := func(sink source.Sink, i int) {
		sink.SetService(restricted(one.DeepCopy(), ranges[i%len(ranges)]...))
		sink.SetService(restricted(two.DeepCopy(), ranges[i%len(ranges)]...))
		for _, f := range families {
			s := slice(two, f, secret)
			if i%3 == 2 {
				s = slice(two, f)
			}
			for p := range s.Ports {
				s.Ports[p].Port = new(int32(9090))
			}
			sink.SetSlice(s)
		}
	}
	sink, programmed := c.control(t, func(sink source.Sink) {
		for _, f := range families {
			sink.SetSlice(slice(one, f, c.a))
		}
		set(sink, 0)
	})
	c.Eventually(10*time.Second, func() error {
		_, err := c.client.ask("tcp", netip.AddrPortFrom(clusterIP(1)[ip6], 80), 100*time.Millisecond)
		return err
	})
	var conns []*netlab.Conn
	for _, f := range families {
		conn, err := broadly.Dial(t.Context(), "tcp", external(1, f)["load balancer IP"], netlab.From(broadly.addrs[f]))
		c.Must(err)
		defer conn.Close()
		conns = append(conns, conn)
	}

	c.lossless(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	tallies, sent := make(chan netlab.Tally), make(chan int)
	for _, f := range families {
		go func() {
			tallies <- netlab.Many(ctx, math.MaxInt, 2, func(i int) (netlab.Answer, error) {
				return always.ask(networks[i%2], external(1, f)["load balancer IP"], patience, netlab.Lossless())
			})
		}()
		go func() { sent <- c.knock(ctx, never, external(2, f)["load balancer IP"]) }()
		go func() {
			// Nothing but silence: neither an answer nor a refusal.
			tallies <- netlab.Many(ctx, math.MaxInt, 8, func(i int) (netlab.Answer, error) {
				a, err := never.ask("tcp", external(2, f)["load balancer IP"], silence)
				if err == nil {
					return a, nil
				}
				if ctx.Err() == nil && !errors.Is(err, netlab.ErrTimeout) {
					return a, err
				}
				return netlab.Answer{Server: "nobody"}, nil
			})
		}()
	}
	for i := 1; i <= rounds; i++ {
		_, before := programmed.now()
		set(sink, i)
		c.Must(netlab.Poll(10*time.Second, func() error {
			if _, passes := programmed.now(); passes == before {
				return fmt.Errorf("round %d is not programmed", i)
			}
			return nil
		}))
		if i%10 != 0 && i%10 != 7 {
			continue
		}
		for f, conn := range conns {
			if _, err := conn.Ask(t.Context()); err != nil {
				t.Errorf("round %d: established connection: %v", i, err)
			}
			dst := external(1, family(f))["load balancer IP"]
			// The last events may still be on their way.
			c.Must(netlab.Poll(10*time.Second, func() error {
				_, err := broadly.ask("udp", dst, silence)
				if in := broad[i%len(ranges)]; (err == nil) != in {
					return fmt.Errorf("round %d: %v to %s, want an answer: %t", i, err, dst, in)
				}
				return nil
			}))
		}
	}
	stop()
	knocks, asked := 0, 0
	for range families {
		knocks += <-sent
		for range 2 {
			tally := <-tallies
			asked += tally.Answered() + tally.Failed()
			if tally.Failed() > 0 || tally.Servers["secret"] > 0 {
				t.Errorf("want no failures, and nobody let in: %v", tally)
			}
		}
	}
	for _, s := range servers {
		if s.Count() > 0 {
			t.Errorf("%d packets arrived at %s", s.Count(), s.Addr())
		}
	}
	t.Logf("%d connections, %d datagrams from outside of the ranges, %d changes", asked, knocks, rounds)
}

// knock sends datagrams, each from another port, until the context is done.
func (c *cluster) knock(ctx context.Context, from *host, dst netip.AddrPort) (n int) {
	for ; ctx.Err() == nil; n++ {
		conn, err := from.Dial(ctx, "udp", dst, netlab.From(from.addrs[familyOf(dst)]), netlab.FromPort(from.fresh()))
		if err != nil {
			continue
		}
		_, _ = conn.Write([]byte("?\n"))
		_ = conn.Close()
	}
	return n
}

// TestSourceRangesEdited: ranges that change while nobody watches are in force after
// the next start, however they overlap those from before (A1.12).
func TestSourceRangesEdited(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	clients := c.clients(t, 4)
	for i, tt := range []struct {
		ranges []string
		in     int // clients let in
	}{
		{[]string{"192.168.1.100/32", "fd00:1::100/128"}, 1},
		{[]string{"192.168.1.100/31", "fd00:1::100/127"}, 2},
		{[]string{"192.168.1.100/32", "192.168.1.101/32", "fd00:1::100/128", "fd00:1::101/128"}, 2},
		{[]string{"192.168.1.100/30", "fd00:1::100/126"}, 4},
		{nil, 4},
		{[]string{"192.168.1.100/32", "fd00:1::100/128"}, 1},
		{[]string{"192.168.0.0/16", "fd00::/16"}, 4},
		{[]string{"192.168.1.100/32", "192.168.1.101/32", "192.168.1.102/32", "fd00:1::100/127", "fd00:1::102/128"}, 3},
	} {
		c.write(t, "web.yaml", withSlices(restricted(everywhere("web", 1), tt.ranges...), c.a, c.b)...)
		c.start(t, "--cluster-cidr", clusterCIDR)
		t.Run(fmt.Sprint("A1.12 start ", i), func(t *testing.T) {
			c.programmed(t)
			for _, f := range families {
				dst := external(1, f)["load balancer IP"]
				for j, from := range clients {
					if j < tt.in {
						c.served(t, from, "tcp", dst, masqueraded, "a", "b")
					} else {
						c.silent(t, from, "tcp", dst)
					}
				}
			}
			if n := c.proxy.count("level=ERROR") + c.proxy.count("table replaced"); n > 0 {
				t.Errorf("trouble at start:\n%s", c.proxy.tail())
			}
		})
		c.proxy.kill()
	}
}
