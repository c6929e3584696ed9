// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

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
