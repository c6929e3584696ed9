// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// families lists the IP families of this kernel: IPv6 may be missing or disabled.
func families() []nft.Family {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return []nft.Family{nft.IPv4}
	}
	if disabled, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6"); err == nil && strings.TrimSpace(string(disabled)) == "1" {
		return []nft.Family{nft.IPv4}
	}
	return nft.Families[:]
}

// localAddrs lists this host's addresses.
func localAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this host's addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				addrs = append(addrs, addr.Unmap())
			}
		}
	}
	return addrs, nil
}

// Multicast groups of the kernel that tell of addresses (linux/rtnetlink.h).
const (
	groupIPv4Addrs = 5
	groupIPv6Addrs = 9
)

// watchAddrs says when this host's addresses change, until ctx ends. Several
// changes may be said once.
func watchAddrs(ctx context.Context) (<-chan struct{}, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("watch this host's addresses: %w", err)
	}
	for _, group := range []uint32{groupIPv4Addrs, groupIPv6Addrs} {
		if err := conn.JoinGroup(group); err != nil {
			conn.Close()
			return nil, fmt.Errorf("watch this host's addresses: %w", err)
		}
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	changed := make(chan struct{}, 1)
	go func() {
		for {
			// Which address it was does not matter, and neither does one that was
			// lost for want of room: all are listed again.
			if _, err := conn.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, nil
}

// nodeIPs finds an address of each family that this host is known by, for want
// of a Node object: the source address of packets to the outside, else the first
// global address.
func nodeIPs() []netip.Addr {
	local, err := localAddrs()
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, f := range families() {
		if a, ok := outboundAddr(f); ok {
			found = append(found, a)
			continue
		}
		for _, a := range local {
			if nft.FamilyOf(a) == f && a.IsGlobalUnicast() {
				found = append(found, a)
				break
			}
		}
	}
	return found
}

// outboundAddr asks the kernel's routing table; connecting a UDP socket sends
// nothing. The destinations are documentation addresses (RFC 5737, RFC 3849).
func outboundAddr(f nft.Family) (netip.Addr, bool) {
	network, to := "udp4", "192.0.2.1:9"
	if f == nft.IPv6 {
		network, to = "udp6", "[2001:db8::1]:9"
	}
	conn, err := net.Dial(network, to)
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	a := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	return a, a.IsGlobalUnicast()
}
