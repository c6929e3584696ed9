// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kube-nft/kube-nft/controller/model"
)

// loopback is where node ports of each family are served.
var loopback = [model.Families]netip.Addr{
	model.IPv4: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
	model.IPv6: netip.IPv6Loopback(),
}

// key is a node port of one family.
type key struct {
	family   model.Family
	protocol model.Protocol
	number   uint16
}

func (k key) addr() netip.AddrPort { return netip.AddrPortFrom(loopback[k.family], k.number) }

// network is the word of package net.
func (k key) network() string {
	n := map[model.Protocol]string{model.TCP: "tcp", model.UDP: "udp", model.SCTP: "sctp"}[k.protocol]
	return n + [...]string{model.IPv4: "4", model.IPv6: "6"}[k.family]
}

func (k key) String() string { return k.addr().String() + "/" + strings.TrimRight(k.network(), "46") }

// port is a node port that a Service claims. Relay.mu guards it.
type port struct {
	key
	relay    *Relay
	claims   []*service // the first has the port
	listener listener   // nil if nobody listens
	// last is the endpoint of the latest connection, and when that was. All clients
	// are one for the affinity: they are this node.
	last     netip.AddrPort
	lastUsed time.Time
}

// listener is a socket on loopback and what is served through it.
type listener interface {
	// close ends the listener and its UDP flows; TCP connections go on.
	close()
	// keep ends UDP flows to other endpoints than these, which are sorted.
	keep(endpoints []netip.AddrPort)
}

// claim makes a Service one of those that claim a port.
func (r *Relay) claim(s *service, k key) {
	p := r.ports[k]
	if p == nil {
		p = &port{key: k, relay: r}
		r.ports[k] = p
	}
	if !slices.Contains(p.claims, s) {
		p.claims = append(p.claims, s)
	}
	slices.SortFunc(p.claims, func(a, b *service) int {
		return cmp.Or(cmp.Compare(a.created, b.created), model.CompareNames(a.name, b.name))
	})
	r.settle(p)
}

func (r *Relay) unclaim(s *service, k key) {
	p := r.ports[k]
	p.claims = slices.DeleteFunc(p.claims, func(other *service) bool { return other == s })
	r.settle(p)
	if len(p.claims) == 0 {
		delete(r.ports, k)
	}
}

// endpoints are those of the Service that has the port.
func (p *port) endpoints() []netip.AddrPort {
	if len(p.claims) == 0 {
		return nil
	}
	return p.claims[0].ports[p.key].Endpoints
}

// settle listens if there is somebody to connect to.
func (r *Relay) settle(p *port) {
	endpoints := p.endpoints()
	if len(endpoints) == 0 {
		p.close()
		delete(r.held, p)
		return
	}
	if p.listener != nil {
		p.listener.keep(endpoints)
		return
	}
	var err error
	if p.protocol == model.TCP {
		p.listener, err = r.listenTCP(p)
	} else {
		p.listener, err = r.listenUDP(p)
	}
	if err != nil {
		p.listener = nil
		r.hold(p, err)
		return
	}
	if r.held[p] {
		delete(r.held, p)
		r.log.Info("node port is served on localhost now", "service", p.claims[0].name.String(), "port", p.String())
	}
}

// hold notes that a port could not be listened on, and sees that it is tried again.
func (r *Relay) hold(p *port, err error) {
	if r.retry == nil {
		r.retry = time.AfterFunc(retryAfter, r.retryHeld)
	}
	if r.held[p] {
		return
	}
	r.held[p] = true
	service, at := p.claims[0].name.String(), p.String()
	switch {
	case !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EAFNOSUPPORT):
		r.log.Warn("node port is not served on localhost, will try again; end what listens there, or change the node port",
			"service", service, "port", at, "err", err)
	case !r.without[p.family]:
		r.without[p.family] = true
		r.log.Info("this host has no such loopback address, node ports are not served there", "addr", loopback[p.family].String())
	}
}

// retryHeld tries again what somebody else held.
func (r *Relay) retryHeld() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retry = nil
	if r.closed {
		return
	}
	for p := range r.held {
		r.settle(p)
	}
}

func (p *port) close() {
	if p.listener != nil {
		p.listener.close()
		p.listener = nil
	}
}

// pick chooses the endpoint of a new flow: at random, or the last one while the
// affinity lasts, which each connection renews. It returns no Service if the port
// has just lost its endpoints. The caller holds mu.
func (r *Relay) pick(p *port) (*service, netip.AddrPort) {
	endpoints := p.endpoints()
	if len(endpoints) == 0 {
		return nil, netip.AddrPort{}
	}
	s, now := p.claims[0], time.Now()
	sticks := now.Sub(p.lastUsed) < s.ports[p.key].Affinity && contains(endpoints, p.last)
	if !sticks {
		p.last = endpoints[rand.IntN(len(endpoints))]
	}
	p.lastUsed = now
	return s, p.last
}

func contains(sorted []netip.AddrPort, a netip.AddrPort) bool {
	_, found := slices.BinarySearchFunc(sorted, a, netip.AddrPort.Compare)
	return found
}
