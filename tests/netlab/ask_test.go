// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// tracked makes the router track connections and drop what it finds invalid,
// such as SCTP with a wrong checksum.
const tracked = `table inet guard {
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct state established,related,new accept
	}
}`

func TestAsk(t *testing.T) {
	r := newRouted(t)
	r.Must(r.router.NFT(tracked))
	eachWay(t, func(t *testing.T, network string, server, client netip.Addr) {
		dst := netip.AddrPortFrom(server, 80)
		s := r.Serve(r.server, network, dst, "one")
		a := r.Ask(r.client, network, dst)
		if a.Server != "one" || a.Source.Addr() != client || a.Source.Port() < 1024 || a.Took <= 0 {
			t.Errorf("answer %+v", a)
		}
		want := netip.AddrPortFrom(client, 4321)
		for range 3 { // the port is free again each time
			if a := r.Ask(r.client, network, dst, netlab.From(client), netlab.FromPort(4321)); a.Source != want {
				t.Errorf("server saw %s, want %s", a.Source, want)
			}
		}
		if a := r.Ask(r.client, network, dst, netlab.From(client)); a.Source.Addr() != client {
			t.Errorf("server saw %s, want %s", a.Source, client)
		}
		if s.Count() != 5 {
			t.Errorf("server counts %d, want 5", s.Count())
		}
	})
}

// Translation rewrites addresses, ports and checksums of all three networks.
func TestAskTranslated(t *testing.T) {
	r := newRouted(t)
	r.Must(r.router.NFT(tracked), r.router.NFT(`table inet nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr 192.0.2.1 meta l4proto { tcp, udp, sctp } th dport 80 dnat ip to 10.0.2.2:8080
		ip6 daddr 2001:db8::1 meta l4proto { tcp, udp, sctp } th dport 80 dnat ip6 to [fd00:2::2]:8080
	}
	chain postrouting {
		type nat hook postrouting priority srcnat;
		masquerade
	}
}`))
	eachWay(t, func(t *testing.T, network string, server, _ netip.Addr) {
		vip, seen := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddr("10.0.2.1")
		if server.Is6() {
			vip, seen = netip.MustParseAddrPort("[2001:db8::1]:80"), netip.MustParseAddr("fd00:2::1")
		}
		r.Serve(r.server, network, netip.AddrPortFrom(server, 8080), "one")
		if a := r.Ask(r.client, network, vip); a.Server != "one" || a.Source.Addr() != seen {
			t.Errorf("answer %+v, want source %s", a, seen)
		}
	})
}

// TestLossless: a first packet that is lost is a late answer, and an error for who does
// not want that.
func TestLossless(t *testing.T) {
	r := newRouted(t)
	r.Must(r.router.NFT(`table inet t {
	chain forward {
		type filter hook forward priority 0;
		tcp dport 1 quota until 100 bytes drop
		tcp dport 2 quota until 100 bytes drop
		tcp sport 3 tcp flags & (psh | rst) == psh quota until 100 bytes drop
	}
}`))
	ask := func(port uint16, opts ...netlab.Option) (netlab.Answer, error) {
		dst := netip.AddrPortFrom(netip.MustParseAddr("10.0.2.2"), port)
		return r.client.Ask(t.Context(), "tcp", dst, append(opts, netlab.Timeout(10*time.Second))...)
	}
	for port := uint16(1); port <= 3; port++ {
		r.Serve(r.server, "tcp", netip.AddrPortFrom(netip.MustParseAddr("10.0.2.2"), port), "one")
	}
	if a, err := ask(1); err != nil || a.Took < 900*time.Millisecond {
		t.Errorf("sent again: %+v, %v", a, err)
	}
	if _, err := ask(1, netlab.Lossless()); err != nil {
		t.Errorf("nothing lost: %v", err)
	}
	if _, err := ask(2, netlab.Lossless()); !errors.Is(err, netlab.ErrSentAgain) {
		t.Errorf("sent again: %v", err)
	}
	if n := r.server.SentAgain(); n != 0 {
		t.Errorf("the server is told to have sent %d packets again", n)
	}
	if _, err := ask(3, netlab.Lossless()); err != nil {
		t.Errorf("an answer that was sent again: %v", err)
	}
	r.Eventually(10*time.Second, func() error { // once the server has heard that it is over
		if n := r.server.SentAgain(); n != 1 {
			return fmt.Errorf("the server is told to have sent %d packets again", n)
		}
		return nil
	})
}

func TestAskFails(t *testing.T) {
	r := newRouted(t)
	r.Must(r.router.NFT(tracked), r.router.NFT(`table inet t {
	chain forward {
		type filter hook forward priority -1;
		th dport 1 drop
		th dport 2 reject
		th dport 3 reject with icmpx type admin-prohibited
		th dport 4 reject with icmpx type no-route
		tcp dport 5 reject with tcp reset
	}
}`), r.client.NFT(`table inet t {
	chain output {
		type filter hook output priority 0;
		th dport 6 drop
	}
}`))
	filtered := map[string]error{"tcp": netlab.ErrTimeout, "udp": netlab.ErrFiltered, "sctp": netlab.ErrFiltered}
	eachWay(t, func(t *testing.T, network string, server, _ netip.Addr) {
		for _, tt := range []struct {
			name         string
			dst          netip.AddrPort
			want         error
			icmp4, icmp6 netlab.ICMPError
		}{
			{name: "closed port", dst: netip.AddrPortFrom(server, 9), want: netlab.ErrRefused},
			{name: "dropped", dst: netip.AddrPortFrom(server, 1), want: netlab.ErrTimeout},
			{"port unreachable", netip.AddrPortFrom(server, 2), netlab.ErrRefused, netlab.ICMPError{3, 3}, netlab.ICMPError{1, 4}},
			{"prohibited", netip.AddrPortFrom(server, 3), netlab.ErrUnreachable, netlab.ICMPError{3, 13}, netlab.ICMPError{1, 1}},
			{"no route at the router", netip.AddrPortFrom(server, 4), netlab.ErrUnreachable, netlab.ICMPError{3, 0}, netlab.ICMPError{1, 0}},
			{name: "dropped on the way out", dst: netip.AddrPortFrom(server, 6), want: filtered[network]},
		} {
			t.Run(tt.name, func(t *testing.T) {
				timeout := 10 * time.Second
				if tt.want == netlab.ErrTimeout {
					timeout = 100 * time.Millisecond
				}
				_, err := r.client.Ask(t.Context(), network, tt.dst, netlab.Timeout(timeout))
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				var got netlab.ICMPError
				if icmp := new(netlab.ICMPError); errors.As(err, &icmp) {
					got = *icmp
				}
				want := tt.icmp4
				if server.Is6() {
					want = tt.icmp6
				}
				if network != "sctp" && tt.dst.Port() != 9 && got != want {
					t.Errorf("cause is %v, want %v: %v", got, want, err)
				}
			})
		}
	})
	_, err := r.client.Ask(t.Context(), "tcp", netip.AddrPortFrom(server4, 5))
	if icmp := new(netlab.ICMPError); !errors.Is(err, netlab.ErrRefused) || errors.As(err, &icmp) {
		t.Errorf("tcp reset: got %v", err)
	}
	r.Must(r.client.IP("route del default"))
	if _, err = r.client.Ask(t.Context(), "udp", netip.AddrPortFrom(server4, 80)); !errors.Is(err, netlab.ErrUnreachable) {
		t.Errorf("no route: got %v", err)
	}
}

// Concurrent refusals and answers do not get mixed up, though all raw sockets
// between two hosts see the packets and the ICMP errors of each other.
func TestAskMixed(t *testing.T) {
	r := newRouted(t)
	r.Must(r.router.NFT(`table inet t { chain c { type filter hook forward priority 0; th dport 2 reject
}
}`))
	eachWay(t, func(t *testing.T, network string, server, _ netip.Addr) {
		r.Serve(r.server, network, netip.AddrPortFrom(server, 80), "one")
		tally := netlab.Many(t.Context(), 400, 16, func(i int) (netlab.Answer, error) {
			port := uint16(80)
			if i%2 == 1 {
				port = 2
			}
			return r.client.Ask(t.Context(), network, netip.AddrPortFrom(server, port), netlab.Timeout(10*time.Second))
		})
		if tally.Servers["one"] != 200 || tally.Errors[netlab.ErrRefused] != 200 {
			t.Error(tally)
		}
	})
}

func TestAskCancelled(t *testing.T) {
	r := newRouted(t)
	r.Must(r.router.NFT(`table inet t { chain c { type filter hook forward priority 0; drop
}
}`))
	eachWay(t, func(t *testing.T, network string, server, _ netip.Addr) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(20*time.Millisecond, cancel)
		begin := time.Now()
		_, err := r.client.Ask(ctx, network, netip.AddrPortFrom(server, 80), netlab.Timeout(time.Minute))
		if !errors.Is(err, context.Canceled) || time.Since(begin) > 10*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err = r.client.Ask(ctx, network, netip.AddrPortFrom(server, 80), netlab.Timeout(time.Minute))
		if !errors.Is(err, netlab.ErrTimeout) {
			t.Errorf("deadline of the context: %v", err)
		}
	})
}

func TestLongLived(t *testing.T) {
	r := newRouted(t)
	eachWay(t, func(t *testing.T, network string, server, client netip.Addr) {
		s := r.Serve(r.server, network, netip.AddrPortFrom(server, 80), "one")
		c, err := r.client.Dial(t.Context(), network, s.Addr())
		r.Must(err)
		defer c.Close()
		first, err := c.Ask(t.Context())
		r.Must(err)
		for range 10 {
			a, err := c.Ask(t.Context())
			r.Must(err)
			if a.Server != "one" || a.Source != first.Source || a.Source.Addr() != client {
				t.Errorf("answer %+v, first %+v", a, first)
			}
		}
		if s.Count() != 11 {
			t.Errorf("server counts %d, want 11", s.Count())
		}
		r.Must(s.Close(), s.Close())
		if a, err := c.Ask(t.Context()); err == nil {
			t.Errorf("answer %+v from a closed server", a)
		}
	})
}

func TestManyAsks(t *testing.T) {
	const n, parallel = 10000, 32
	r := newRouted(t)
	eachWay(t, func(t *testing.T, network string, server, client netip.Addr) {
		s := r.Serve(r.server, network, netip.AddrPortFrom(server, 80), "one")
		tally := netlab.Many(t.Context(), n, parallel, func(int) (netlab.Answer, error) {
			return r.client.Ask(t.Context(), network, s.Addr(), netlab.Timeout(10*time.Second))
		})
		t.Log(tally)
		if tally.Servers["one"] != n || tally.Sources[client] != n || s.Count() != n {
			t.Errorf("%v, want %d; server counts %d", tally, n, s.Count())
		}
	})
}

func TestTally(t *testing.T) {
	errs := []error{nil, fmt.Errorf("ask: %w", netlab.ErrRefused), nil, errors.New("strange"), nil}
	tally := netlab.Many(t.Context(), len(errs), 1, func(i int) (netlab.Answer, error) {
		return netlab.Answer{Server: []string{"b", "", "a", "", "b"}[i], Source: netip.AddrPortFrom(client4, 1)}, errs[i]
	})
	if got, want := tally.String(), "3 answered (a=1 b=2) from (10.0.1.2=3), 2 failed (other=1 refused=1) in "; !strings.HasPrefix(got, want) {
		t.Errorf("-want +got\n-%s\n+%s", want, got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if tally := netlab.Many(ctx, 10, 2, nil); tally.Answered()+tally.Failed() != 0 {
		t.Errorf("cancelled before it began: %v", tally)
	}
}

func BenchmarkDo(b *testing.B) {
	n := netlab.NewT(b).Namespace("n")
	for b.Loop() {
		if err := n.Do(func() error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
