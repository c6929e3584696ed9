// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/controller/explain"
)

// thisHost is this network namespace; an explain.Host.
type thisHost struct {
	addrs []explain.Addr
	known map[routeQuery]explain.Route
}

type routeQuery struct {
	to, from netip.Addr
	in       string
}

// newHost lists this host's addresses.
func newHost() (*thisHost, error) {
	h := &thisHost{known: make(map[routeQuery]explain.Route)}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list this host's devices: %w", err)
	}
	for _, link := range links {
		all, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, a := range all {
			ip, ok := netip.AddrFromSlice(a.IP)
			if !ok {
				continue
			}
			length, _ := a.Mask.Size()
			h.addrs = append(h.addrs, explain.Addr{
				Prefix:     netip.PrefixFrom(ip.Unmap(), length),
				Interface:  link.Attrs().Name,
				Secondary:  ip.Unmap().Is4() && a.Flags&unix.IFA_F_SECONDARY != 0,
				Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0,
				Narrow:     a.Scope != int(netlink.SCOPE_UNIVERSE),
			})
		}
	}
	return h, nil
}

// Addrs implements explain.Host.
func (h *thisHost) Addrs() []explain.Addr { return h.addrs }

// Forwards implements explain.Host.
func (h *thisHost) Forwards(a netip.Addr) bool {
	if a.Is6() {
		return sysctl("ipv6/conf/all/forwarding") != "0"
	}
	return sysctl("ipv4/ip_forward") != "0"
}

// Route implements explain.Host.
func (h *thisHost) Route(to, from netip.Addr, in string) explain.Route {
	q := routeQuery{to, from, in}
	r, ok := h.known[q]
	if !ok {
		r = ask(q)
		h.known[q] = r
	}
	return r
}

// ask asks the kernel.
func ask(q routeQuery) explain.Route {
	options := &netlink.RouteGetOptions{}
	if q.from.IsValid() && q.in != "" {
		options.SrcAddr, options.Iif = q.from.AsSlice(), q.in
	}
	all, err := netlink.RouteGetWithOptions(q.to.AsSlice(), options)
	switch {
	case errors.Is(err, unix.EXDEV):
		return explain.Route{Problem: fmt.Sprintf("this host would send answers to %s by another device than %s, and drops such packets (rp_filter)", q.from, q.in)}
	case errors.Is(err, unix.EINVAL) && q.in != "":
		return explain.Route{Problem: fmt.Sprintf("this host does not take packets from %s that come in by %s", q.from, q.in)}
	case err != nil:
		return explain.Route{Problem: fmt.Sprintf("no route to %s: %v", q.to, err)}
	case len(all) == 0:
		return explain.Route{Problem: fmt.Sprintf("no route to %s", q.to)}
	}
	r := all[0]
	out := explain.Route{Local: r.Type == unix.RTN_LOCAL}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		out.Via = via.Unmap()
	}
	if source, ok := netip.AddrFromSlice(r.Src); ok {
		out.Source = source.Unmap()
	}
	if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
		out.Out = link.Attrs().Name
	}
	switch r.Type {
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT:
		out.Problem = fmt.Sprintf("a route says that %s is not to be reached", q.to)
	}
	return out
}
