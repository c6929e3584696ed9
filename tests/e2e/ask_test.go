// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// patience is how long a client waits for an answer that is to come: longer than
// a neighbour takes that has to be asked for its address again.
const patience = 10 * time.Second

// atOnce bounds a refusal: a client that is refused does not wait.
const atOnce = 200 * time.Millisecond

// silence is how long no answer comes before it is said that none comes: what
// answers here does so within a millisecond.
const silence = 80 * time.Millisecond

func (h *host) ask(network string, dst netip.AddrPort, timeout time.Duration, opts ...netlab.Option) (netlab.Answer, error) {
	opts = append(opts, netlab.Timeout(timeout))
	if network == "udp" {
		opts = append(opts, netlab.FromPort(h.fresh()))
	}
	if h.bound {
		opts = append(opts, netlab.From(h.addrs[familyOf(dst)]))
	}
	return h.Ask(context.Background(), network, dst, opts...)
}

// lossless has a test fail if a pod's server has to send anything again from now on,
// which a client with netlab.Lossless does not see.
func (c *cluster) lossless(t *testing.T) {
	t.Helper()
	sentAgain := func() (n int) {
		for _, h := range []*host{c.a, c.b, c.r, c.s} {
			n += h.SentAgain()
		}
		return n
	}
	before := sentAgain()
	t.Cleanup(func() {
		if n := sentAgain() - before; n > 0 {
			t.Errorf("servers had to send %d packets again", n)
		}
	})
}

// asked counts the UDP ports that hosts have asked from.
var asked sync.Map // of *atomic.Uint32 by *netlab.Namespace

// fresh is a port that the host has not asked from for long. For the kernel two
// datagrams between the same ports are one connection for half a minute, which
// leads where it led first: a port drawn at random is one such now and then.
func (h *host) fresh() uint16 {
	const first, ports = 40_000, 25_000
	n, _ := asked.LoadOrStore(h.Namespace, new(atomic.Uint32))
	return uint16(first + n.(*atomic.Uint32).Add(1)%ports)
}

// seen is what the server at the host sees of a client.
type seen int

const (
	own          seen = iota // the client's address
	masqueraded              // the node's
	eitherSource             // not looked at
)

// served checks that a frontend leads to all of the named servers and to no
// others, and what they see of the client. Servers are named after the host
// that they are on, with a dot and more if it has several.
func (c *cluster) served(t *testing.T, from *host, network string, dst netip.AddrPort, sees seen, servers ...string) {
	t.Helper()
	if err := c.tryServed(from, network, dst, sees, servers...); err != nil {
		t.Error(err)
	}
}

func (c *cluster) tryServed(from *host, network string, dst netip.AddrPort, sees seen, servers ...string) error {
	missing := make(map[string]bool)
	for _, s := range servers {
		missing[s] = true
	}
	op := fmt.Sprintf("from %s to %s %s", from.Name(), network, dst)
	const enough = 5 // questions to see that no other server answers
	for i := 0; i < enough || len(missing) > 0; i++ {
		if i == 50*len(servers) {
			return fmt.Errorf("%s: never answered by %v", op, missing)
		}
		a, err := from.ask(network, dst, patience)
		if err != nil {
			return err
		}
		if delete(missing, a.Server); !contains(servers, a.Server) {
			return fmt.Errorf("%s: answered by %s, want one of %v", op, a.Server, servers)
		}
		if err := c.checkSource(from, a, sees); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	return nil
}

func contains(all []string, s string) bool {
	for _, one := range all {
		if one == s {
			return true
		}
	}
	return false
}

func (c *cluster) checkSource(from *host, a netlab.Answer, sees seen) error {
	f := ip4
	if a.Source.Addr().Is6() {
		f = ip6
	}
	var want netip.Addr
	switch sees {
	case own:
		want = from.addrs[f]
	case masqueraded:
		name, _, _ := strings.Cut(a.Server, ".")
		for _, h := range []*host{c.a, c.b, c.r, c.s} {
			if h.Name() == name {
				want = h.via[f]
			}
		}
	case eitherSource:
		return nil
	}
	if got := a.Source.Addr(); got != want {
		return fmt.Errorf("%s saw %s, want %s", a.Server, got, want)
	}
	return nil
}

// refused checks that a frontend refuses, and at once. The machine may be busy:
// the fastest of three tries counts.
func (c *cluster) refused(t *testing.T, from *host, network string, dst netip.AddrPort) {
	t.Helper()
	if err := c.tryRefused(from, network, dst); err != nil {
		t.Error(err)
	}
}

func (c *cluster) tryRefused(from *host, network string, dst netip.AddrPort) error {
	fastest := time.Hour
	for range 3 {
		begin := time.Now()
		a, err := from.ask(network, dst, patience)
		took := time.Since(begin)
		switch {
		case err == nil:
			return fmt.Errorf("from %s to %s %s: answered by %s, want a refusal", from.Name(), network, dst, a.Server)
		case from == c.node && network != "tcp" && errors.Is(err, netlab.ErrFiltered):
			// A packet that is rejected on its way out fails the sender's own
			// write, before the ICMP error comes back.
		case !errors.Is(err, netlab.ErrRefused):
			return err
		}
		if fastest = min(fastest, took); fastest < atOnce {
			return nil
		}
	}
	return fmt.Errorf("from %s to %s %s: refused only after %v", from.Name(), network, dst, fastest)
}

// silent checks that a frontend neither answers nor refuses.
func (c *cluster) silent(t *testing.T, from *host, network string, dst netip.AddrPort) {
	t.Helper()
	a, err := from.ask(network, dst, silence)
	if !errors.Is(err, netlab.ErrTimeout) {
		t.Errorf("from %s to %s %s: got %v, %v, want silence", from.Name(), network, dst, a, err)
	}
}

// vanishes is silent, also for the node itself: a packet that is dropped on its
// way out fails the sender's own write, which all but TCP tell.
func (c *cluster) vanishes(t *testing.T, from *host, network string, dst netip.AddrPort) {
	t.Helper()
	a, err := from.ask(network, dst, silence)
	if from == c.node && network != "tcp" && errors.Is(err, netlab.ErrFiltered) {
		return
	}
	if !errors.Is(err, netlab.ErrTimeout) {
		t.Errorf("from %s to %s %s: got %v, %v, want silence", from.Name(), network, dst, a, err)
	}
}

// eachWay runs a subtest for each network and family.
func eachWay(t *testing.T, f func(t *testing.T, network string, f family)) {
	t.Helper()
	eachWayOf(t, networks, f)
}

func eachWayOf(t *testing.T, networks []string, f func(t *testing.T, network string, f family)) {
	t.Helper()
	for _, network := range networks {
		for _, fam := range families {
			t.Run(network+" "+fam.String(), func(t *testing.T) { f(t, network, fam) })
		}
	}
}

// many asks from several clients at a time.
func (h *host) many(n, parallel int, network string, dst netip.AddrPort) netlab.Tally {
	return netlab.Many(context.Background(), n, parallel, func(int) (netlab.Answer, error) {
		return h.ask(network, dst, patience)
	})
}
