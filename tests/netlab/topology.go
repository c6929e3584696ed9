// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
)

// Link connects two namespaces by a veth pair, ifA in a and ifB in b. On return
// both ends are up and pass packets.
func Link(a *Namespace, ifA string, b *Namespace, ifB string) error {
	peer := filepath.Base(b.path)
	err := a.IP(fmt.Sprintf("link add name %s type veth peer name %s netns %s", ifA, ifB, peer))
	if err != nil {
		return err
	}
	if err := errors.Join(a.up(ifA), b.up(ifB)); err != nil {
		return err
	}
	return errors.Join(a.awaitUp(ifA), b.awaitUp(ifB))
}

// Bridge creates a bridge of interfaces that exist. On return it is up, and if
// it has ports it passes packets.
func (n *Namespace) Bridge(name string, ports ...string) error {
	lines := []string{"link add " + name + " type bridge mcast_snooping 0"}
	for _, p := range ports {
		lines = append(lines, "link set "+p+" master "+name)
	}
	if err := n.IP(lines...); err != nil {
		return err
	}
	for _, p := range ports {
		if err := n.up(p); err != nil {
			return err
		}
	}
	if err := n.up(name); err != nil || len(ports) == 0 {
		return err
	}
	return n.awaitUp(name)
}

// Addr adds addresses to an interface; they are usable on return.
func (n *Namespace) Addr(ifname string, prefixes ...netip.Prefix) error {
	var lines []string
	for _, p := range prefixes {
		line := fmt.Sprintf("addr add %s dev %s", p, ifname)
		if p.Addr().Is6() {
			line += " nodad"
		}
		lines = append(lines, line)
	}
	return n.IP(lines...)
}

// Route routes a destination through a neighbour, in place of an earlier route
// to the same destination.
func (n *Namespace) Route(dst netip.Prefix, via netip.Addr) error {
	return n.IP(fmt.Sprintf("route replace %s via %s", dst, via))
}

// DefaultRoute routes everything else through the neighbours, at most one of
// each family.
func (n *Namespace) DefaultRoute(via ...netip.Addr) error {
	var lines []string
	for _, v := range via {
		all := netip.PrefixFrom(v, 0).Masked()
		lines = append(lines, fmt.Sprintf("route replace %s via %s", all, v))
	}
	return n.IP(lines...)
}

// Forward makes the namespace a router for both families.
func (n *Namespace) Forward() error {
	return errors.Join(
		n.Sysctl("net.ipv4.ip_forward", "1"),
		n.Sysctl("net.ipv6.conf.all.forwarding", "1"),
	)
}
