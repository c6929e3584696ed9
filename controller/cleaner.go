// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/nft"
)

// Conntrack is the kernel's table of connections, as a Cleaner needs it;
// nft/conntrack.Conn is one.
type Conntrack interface {
	// Purge deletes the entries that stale says are, by the address that the client
	// sent to and the one that answers it: those of a family and a protocol whose
	// original destination port is port, or if that is 0, all of them. It returns
	// how many it has looked at and how many it has deleted.
	Purge(ctx context.Context, f nft.Family, p nft.Proto, port uint16, stale func(dst, server netip.AddrPort) bool) (seen, deleted int, err error)
}

// Endpoints are the endpoints that the connections of a frontend may have, sorted.
type Endpoints []netip.AddrPort

func (e Endpoints) has(a netip.AddrPort) bool {
	_, ok := slices.BinarySearchFunc(e, a, netip.AddrPort.Compare)
	return ok
}

// within reports whether all of them are among others.
func (e Endpoints) within(others Endpoints) bool {
	return !slices.ContainsFunc(e, func(a netip.AddrPort) bool { return !others.has(a) })
}

// Cleaner deletes stale UDP flows from conntrack. The kernel translates a flow as
// it did its first packet, and UDP has no end: a client that goes on sending from
// one port stays with an endpoint that is gone, or with none if there was none when
// it began. TCP and SCTP notice by themselves, and are never touched.
//
// A flow is stale if it was sent to one of our frontends and is answered by
// something that is none of the frontend's endpoints now. Before a commit the
// Cleaner is told of endpoints that come, and after it of those that have gone, so
// that at no moment a flow is judged by an endpoint's absence that the kernel may
// already lead to.
//
// It works in a goroutine of its own, Run's; the other methods return at once.
type Cleaner struct {
	// Walked is called after each walk, by Run's goroutine. Nil is nobody.
	Walked func(Walk)

	conntrack  Conntrack
	spare      time.Duration // underWay, but in tests
	localAddrs func() ([]netip.Addr, error)
	log        *slog.Logger
	wake       chan struct{} // has room for one

	mu       sync.Mutex
	families map[nft.Family]*known
	round    int // number of the sweep that is under way or was last
}

// known is what the Cleaner knows of a family.
type known struct {
	frontends map[compile.Frontend]*flows
	nodeIPs   map[netip.Addr]struct{} // that node ports are served on
	listed    bool                    // nodeIPs are what SetNodeIPs said, not all local ones
}

// flows is what is known of the flows to a frontend.
type flows struct {
	endpoints Endpoints                    // as Check said
	allowed   Endpoints                    // those, and what Allow added
	left      map[netip.AddrPort]time.Time // those that have left, and when
	walks     int                          // still to be made for their sake
	since     int                          // the round in which that was said
}

// underWay is how long a question that was asked of an endpoint before it left may
// wait for its answer: so long flows to it are spared. The second walk for its sake
// comes later than that.
const underWay = 100 * time.Millisecond

// depart notes which endpoints leave, and forgets those that have been gone for long.
func (f *flows) depart(now time.Time, endpoints Endpoints) {
	maps.DeleteFunc(f.left, func(_ netip.AddrPort, at time.Time) bool { return now.Sub(at) > underWay })
	for _, a := range f.allowed {
		if endpoints.has(a) {
			continue
		}
		if f.left == nil {
			f.left = make(map[netip.AddrPort]time.Time)
		}
		f.left[a] = now
	}
}

// spares reports whether an endpoint left less than so long ago.
func (f *flows) spares(endpoint netip.AddrPort, long time.Duration) bool {
	at, left := f.left[endpoint]
	return left && time.Since(at) < long
}

// Walk is what one look at a family's entries came to.
type Walk struct {
	Family  nft.Family
	Seen    int // entries; those that were listed twice count twice
	Deleted int
	Took    time.Duration
	Err     error
}

// NewCleaner returns a Cleaner; Run starts it. localAddrs lists this host's
// addresses, for node ports that are served on all of them.
func NewCleaner(conntrack Conntrack, localAddrs func() ([]netip.Addr, error), log *slog.Logger) *Cleaner {
	return &Cleaner{
		conntrack:  conntrack,
		spare:      underWay,
		localAddrs: localAddrs,
		log:        log,
		wake:       make(chan struct{}, 1),
		families:   make(map[nft.Family]*known),
	}
}

// family returns what is known of a family; the caller holds the lock.
func (c *Cleaner) family(f nft.Family) *known {
	k := c.families[f]
	if k == nil {
		k = &known{frontends: make(map[compile.Frontend]*flows)}
		c.families[f] = k
	}
	return k
}

// Allow says before a commit that flows to a frontend may from now on have these
// endpoints, too.
//
// Flows to a frontend that is not known are not judged: more is not asked then.
func (c *Cleaner) Allow(family nft.Family, f compile.Frontend, more func() Endpoints) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.family(family).frontends[f]
	if at == nil {
		return
	}
	come := more()
	if come.within(at.allowed) {
		return
	}
	// In a slice of its own: the frontends of a Service port share one.
	all := slices.Concat(at.allowed, come)
	slices.SortFunc(all, netip.AddrPort.Compare)
	at.allowed = slices.Compact(all)
}

// Check says after a commit which endpoints the flows to some frontends may have,
// and has all others deleted. It is the last word on each of these frontends. One
// that nobody has any more has no endpoints.
//
// Where endpoints have only been added to others nothing is stale, and nothing is
// done.
func (c *Cleaner) Check(family nft.Family, frontends map[compile.Frontend]Endpoints) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.family(family)
	for f, endpoints := range frontends {
		at := k.frontends[f]
		if at == nil {
			at = &flows{}
			k.frontends[f] = at
		}
		// A flow that began when there was no endpoint is not translated.
		if len(at.endpoints) == 0 || !at.allowed.within(endpoints) {
			c.request(at)
		}
		at.depart(time.Now(), endpoints)
		at.endpoints, at.allowed = endpoints, endpoints
	}
}

// SetNodeIPs says on which addresses the node ports of a family are served. Until
// it is called that is all local addresses. Flows to an address that comes are
// checked: they began as those of another port of the node.
func (c *Cleaner) SetNodeIPs(family nft.Family, addrs []netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.family(family)
	next := make(map[netip.Addr]struct{}, len(addrs))
	for _, a := range addrs {
		next[a] = struct{}{}
	}
	if k.listed && maps.Equal(k.nodeIPs, next) {
		return
	}
	k.nodeIPs, k.listed = next, true
	for f, at := range k.frontends {
		if f.NodePort() {
			c.request(at)
		}
	}
}

// walks is how many are made for a change. The second one finds what the first one
// could not see yet: a packet that passed the old table just before the commit,
// and whose entry was not in the kernel's table when that was listed.
const walks = 2

// request asks for walks; the caller holds the lock.
func (c *Cleaner) request(at *flows) {
	at.walks, at.since = walks, c.round
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// stale judges a flow by what is known now.
func (c *Cleaner) stale(family nft.Family, dst, server netip.AddrPort) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.families[family]
	// Addresses come before node ports, as in the table.
	at := k.frontends[compile.Frontend{Addr: dst.Addr(), Proto: nft.UDP, Port: dst.Port()}]
	if _, isNode := k.nodeIPs[dst.Addr()]; at == nil && isNode {
		at = k.frontends[compile.Frontend{Proto: nft.UDP, Port: dst.Port()}]
	}
	return at != nil && !at.allowed.has(server) && !at.spares(server, c.spare)
}
