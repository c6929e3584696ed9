// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// sender is a client that goes on sending from one port.
type sender struct {
	*netlab.Conn
	name    string
	network string
	dst     netip.AddrPort
	src     netip.AddrPort
}

// pause bounds how long a flow waits for an answer before it sends again.
const pause = 50 * time.Millisecond

// sender opens a flow; nothing is sent yet.
func (c *cluster) sender(t *testing.T, from *host, network string, dst netip.AddrPort) *sender {
	t.Helper()
	conn, err := from.Dial(context.Background(), network, dst, netlab.FromPort(from.fresh()), netlab.Timeout(pause))
	c.Must(err)
	t.Cleanup(func() { conn.Close() })
	src := netip.MustParseAddrPort(conn.LocalAddr().String())
	return &sender{conn, fmt.Sprintf("%s flow from %s to %s", network, from.Name(), dst), network, dst, src}
}

// becomes sends until the flow is answered by a server, "" being a refusal. What is
// lost is sent again: the kernel forgets a UDP flow only after 30 seconds without
// a packet.
func (f *sender) becomes(t *testing.T, server string) {
	t.Helper()
	err := netlab.Poll(patience, func() error {
		a, err := f.Ask(context.Background())
		switch {
		case server == "" && (errors.Is(err, netlab.ErrRefused) || errors.Is(err, netlab.ErrFiltered)):
			return nil // the node's own packets fail in its process
		case err == nil && a.Server != server:
			err = fmt.Errorf("answered by %s", a.Server)
		}
		return err
	})
	if err != nil {
		t.Errorf("%s does not become that of %q: %v", f.name, server, err)
	}
}

// entry is the node's conntrack entry of a flow, if there is one.
func (c *cluster) entry(t *testing.T, f *sender) (found conntrack.Entry, ok bool) {
	t.Helper()
	conn, err := conntrack.Open(conntrack.Options{NetNS: c.node.Fd()})
	c.Must(err)
	defer conn.Close()
	filter := conntrack.Filter{Family: nft.FamilyOf(f.dst.Addr()), Proto: nft.UDP, Port: f.dst.Port()}
	if f.network == "tcp" {
		filter.Proto = nft.TCP
	}
	c.Must(conn.Walk(context.Background(), filter, func(e *conntrack.Entry) bool {
		if e.Original.Src == f.src && e.Original.Dst == f.dst {
			found, ok = *e, true
		}
		return !ok
	}))
	return found, ok
}

// kept returns what checks that the entries of flows are the same as they are now:
// an entry that was deleted and came again has another ID.
func (c *cluster) kept(t *testing.T, flows ...*sender) (check func(t *testing.T)) {
	t.Helper()
	before := make([]conntrack.Entry, len(flows))
	for i, f := range flows {
		var ok bool
		if before[i], ok = c.entry(t, f); !ok {
			t.Fatalf("%s is not in conntrack", f.name)
		}
	}
	return func(t *testing.T) {
		t.Helper()
		for i, f := range flows {
			if now, ok := c.entry(t, f); !ok || now.ID != before[i].ID {
				t.Errorf("%s was deleted from conntrack: %t, %+v", f.name, ok, now)
			}
		}
	}
}

// swept waits until the Cleaner has looked twice at what is programmed now: until
// the stale flow of a Service of its own has gone, and a moment longer.
func (c *cluster) swept(t *testing.T) {
	t.Helper()
	c.programmed(t)
	looks := func() int { return c.proxy.count("looked for stale UDP flows", "family=ip6") }
	before := looks()
	s := service("swept", 253, servicePort("", "UDP", uint16(1000+c.barrier)))
	c.write(t, "zz-swept.yaml", withSlices(s, c.a)...)
	c.Eventually(patience, func() error {
		if n := looks() - before; n < 2 {
			return fmt.Errorf("conntrack was looked through %d times", n)
		}
		return nil
	})
}

// udp returns a Service with every kind of frontend, and those frontends.
func udp(name string, n int) (objects func(...*host) []any, at func(family) map[string]netip.AddrPort) {
	return func(pods ...*host) []any { return withSlices(everywhere(name, n), pods...) },
		func(f family) map[string]netip.AddrPort {
			all := external(n, f)
			all["cluster IP"] = netip.AddrPortFrom(clusterIP(n)[f], 80)
			return all
		}
}

// flows opens flows from outside and from the node itself to each frontend.
func (c *cluster) flows(t *testing.T, at func(family) map[string]netip.AddrPort) (all []*sender) {
	t.Helper()
	for _, f := range families {
		for _, dst := range at(f) {
			all = append(all, c.sender(t, c.client, "udp", dst), c.sender(t, c.node, "udp", dst))
		}
	}
	return all
}

// TestStaleFlows: UDP clients that go on sending from one port follow their Service
// whatever becomes of it. The pods that leave go on answering, so that who is not
// moved is noticed.
func TestStaleFlows(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web, frontends := udp("web", 1)
	c.run(t)
	// Before there is a Service a flow is sent on as it is, or refused by the node.
	flows := c.flows(t, frontends)
	for _, f := range flows {
		_, _ = f.Ask(context.Background())
		if e, ok := c.entry(t, f); !ok || e.Reply.Src != f.dst {
			t.Fatalf("%s: %t, %+v", f.name, ok, e)
		}
	}
	notServing := func(_ int, e *discoveryv1.Endpoint) {
		e.Conditions.Ready, e.Conditions.Serving = new(false), new(false)
	}
	for _, step := range []struct {
		name    string
		objects []any
		server  string
	}{
		{"A4.5 first endpoint", web(c.a), "a"},
		{"A4.1 replaced", web(c.b), "b"},
		{"A4.1 replaced by one elsewhere", web(c.r), "r"},
		{"A4.3 F1 none is left", web(), ""},
		{"A4.5 first endpoint again", web(c.a), "a"},
		{"A4.2 does not serve any more", eachEndpoint(web(c.a), notServing), ""},
		{"A4.1 another one", web(c.s), "s"},
	} {
		c.write(t, "web.yaml", step.objects...)
		t.Run(step.name, func(t *testing.T) {
			for _, f := range flows {
				f.becomes(t, step.server)
			}
		})
	}
}

// TestTakenOver: a frontend that goes from one Service to another takes its flows
// along, and one that goes leaves none behind (A4.1, A4.2).
func TestTakenOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	one, frontends := udp("one", 1)
	c.write(t, "one.yaml", one(c.a)...)
	c.run(t)
	flows := c.flows(t, frontends)
	all := func(t *testing.T, server string) {
		t.Helper()
		for _, f := range flows {
			f.becomes(t, server)
		}
	}
	all(t, "a")
	two := withSlices(everywhere("two", 1), c.b)
	t.Run("A4.1 another Service", func(t *testing.T) {
		c.write(t, "one.yaml", two...)
		all(t, "b")
	})
	t.Run("A4.1 deleted", func(t *testing.T) {
		c.remove(t, "one.yaml")
		for _, f := range flows {
			c.gone(t, f)
		}
	})
	c.write(t, "one.yaml", one(c.a)...)
	all(t, "a")
	c.proxy.stop(t)
	c.write(t, "one.yaml", one(c.b)...)
	c.start(t)
	t.Run("A4.1 changed while nobody looked", func(t *testing.T) { all(t, "b") })
	c.proxy.stop(t)
	c.remove(t, "one.yaml")
	c.start(t)
	t.Run("A4.1 deleted while nobody looked", func(t *testing.T) {
		for _, f := range flows {
			c.gone(t, f)
		}
	})
}

// gone waits until a flow is not translated any more.
func (c *cluster) gone(t *testing.T, f *sender) {
	t.Helper()
	err := netlab.Poll(patience, func() error {
		_, _ = f.Ask(context.Background())
		if e, ok := c.entry(t, f); ok && e.Reply.Src != e.Original.Dst {
			return fmt.Errorf("led to %s", e.Reply.Src)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: %v", f.name, err)
	}
}

// TestGoodFlows: flows whose endpoint is good are never touched, whatever happens
// beside them (A4.2), and neither is TCP (A4.6) or what only looks like a flow to
// a node port (A4.4, F2).
func TestGoodFlows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
	}{{"primary", nil}, {"all", []string{"--nodeport-addresses", "all"}}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			web, frontends := udp("web", 1)
			c.write(t, "web.yaml", web(c.a)...)
			c.run(t, tt.flags...)
			// Nothing is sent on the flows once they are known: the kernel is not to forget them.
			c.sysctl("net.netfilter.nf_conntrack_udp_timeout", "600")
			good := c.flows(t, frontends)
			var unrelated []*sender
			for _, f := range families {
				good = append(good, c.sender(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[f], 80)))
				// Of another host, and of no Service; the node only routes it.
				other := netip.AddrPortFrom(c.b.addrs[f], 30001)
				c.Serve(c.b.Namespace, "udp", other, "b")
				unrelated = append(unrelated, c.sender(t, c.client, "udp", other))
			}
			for _, f := range good {
				f.becomes(t, "a")
			}
			for _, f := range unrelated {
				f.becomes(t, "b")
			}
			kept, keptUnrelated := c.kept(t, good...), c.kept(t, unrelated...)
			for _, step := range []struct {
				name    string
				objects []any
			}{
				{"A4.2 more endpoints", web(c.a, c.b, c.r)},
				{"A4.2 others leave", web(c.a, c.s)},
				{"A4.2 terminating, and another ready", eachEndpoint(web(c.a, c.b), func(i int, e *discoveryv1.Endpoint) {
					if i == 0 {
						e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
					}
				})},
				{"A4.2 policy Local", append([]any{internalLocal(externalLocal(everywhere("web", 1)))}, web(c.a, c.r)[1:]...)},
				{"A4.2 only ready, not serving", eachEndpoint(web(c.a), func(_ int, e *discoveryv1.Endpoint) {
					e.Conditions = discoveryv1.EndpointConditions{Ready: new(true), Serving: new(false)}
				})},
			} {
				c.write(t, "web.yaml", step.objects...)
				c.swept(t)
				t.Run(step.name, kept)
			}
			c.proxy.stop(t)
			c.run(t, tt.flags...)
			c.swept(t)
			t.Run("A4.2 restart", kept)
			c.write(t, "web.yaml", web()...)
			c.swept(t)
			t.Run("A4.4 F2 another host's port", keptUnrelated)
			t.Run("A4.6 TCP", func(t *testing.T) {
				for _, f := range good {
					if f.network == "tcp" {
						f.becomes(t, "a")
					}
				}
			})
		})
	}
}

// TestKernelParameters: what the flags say is set in the node's namespace, and what
// it may not set does not stop it (A4.9).
func TestKernelParameters(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.run(t, "--conntrack-udp-timeout", "33s", "--conntrack-udp-timeout-stream", "2m10s", "--conntrack-tcp-be-liberal")
	for name, want := range map[string]string{
		"tcp_timeout_established": "86400",
		"tcp_timeout_close_wait":  "3600",
		"tcp_be_liberal":          "1",
		"udp_timeout":             "33",
		"udp_timeout_stream":      "130",
	} {
		if got := strings.TrimSpace(c.Run(c.node.Namespace, "cat", "/proc/sys/net/netfilter/nf_conntrack_"+name)); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
