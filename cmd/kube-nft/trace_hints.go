// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/trace"
)

// traceHints says where to look for a packet that no rule ended and nobody saw again:
// what this host says of itself where the packet was last.
func traceHints(p *trace.Packet) []string {
	gap, hook, h := p.Gap()
	switch gap {
	case trace.InHook:
		return conntrackHints(hook)
	case trace.Routing:
		return routingHints(h, p.In)
	case trace.Rerouting:
		return routingHints(h, "")
	case trace.Forwarding:
		return forwardingHints(h, p.Out)
	}
	return nil
}

// conntrackHints tells whether conntrack's table is full, which drops packets that
// begin connections.
func conntrackHints(hook string) []string {
	if hook != "prerouting" && hook != "output" {
		return nil
	}
	count, limit := sysctl("netfilter/nf_conntrack_count"), sysctl("netfilter/nf_conntrack_max")
	n, err := strconv.Atoi(count)
	most, errMost := strconv.Atoi(limit)
	if err != nil || errMost != nil {
		return nil
	}
	words := fmt.Sprintf("conntrack tracks %d connections of at most %d", n, most)
	if n >= most {
		words += ": it is full. Raise net.netfilter.nf_conntrack_max"
	}
	return []string{words}
}

// routingHints asks the kernel to route the packet once more, as it did.
func routingHints(h trace.Header, in string) (hints []string) {
	if in != "" && h.TTL <= 1 {
		hints = append(hints, fmt.Sprintf("its TTL is %d: it may not be forwarded", h.TTL))
	}
	if err := routeOf(h, in); err != nil {
		hints = append(hints, fmt.Sprintf("the kernel has no way for it now: %v", err))
	}
	if in == "" {
		return hints
	}
	key, filters := "ipv4/ip_forward", []string{"ipv4/conf/all/rp_filter", filepath.Join("ipv4/conf", in, "rp_filter")}
	if h.Family() == nft.IPv6 {
		key, filters = "ipv6/conf/all/forwarding", nil
	}
	if sysctl(key) == "0" {
		hints = append(hints, "this host forwards nothing: net."+strings.ReplaceAll(key, "/", ".")+" is 0")
	}
	for _, f := range filters {
		if v := sysctl(f); v == "1" || v == "2" {
			hints = append(hints, fmt.Sprintf("net/%s is %s: a source that is not reached by the device it comes in on is dropped (nstat TcpExtIPReversePathFilter counts them)", f, v))
		}
	}
	return hints
}

// forwardingHints compares the packet with the device that it was to leave by.
func forwardingHints(h trace.Header, out string) []string {
	device, err := net.InterfaceByName(out)
	if err != nil || h.Length <= device.MTU {
		return nil
	}
	return []string{fmt.Sprintf("it has %d bytes, and the MTU of %s is %d", h.Length, out, device.MTU)}
}

// sysctl reads a kernel parameter below net, "" if there is none.
func sysctl(key string) string {
	value, err := os.ReadFile(filepath.Join("/proc/sys/net", key))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}

// rtmsg is the length of struct rtmsg, and rtmsgType where in it the kind of route is
// (linux/rtnetlink.h).
const (
	rtmsg     = 12
	rtmsgType = 7
)

// routeOf asks the kernel where it would send a packet that came in on a device, or
// that this host made if in is "". The errors are those that it would have.
func routeOf(h trace.Header, in string) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil
	}
	defer conn.Close()
	family := byte(unix.AF_INET)
	if h.Family() == nft.IPv6 {
		family = unix.AF_INET6
	}
	attrs := []netlink.Attribute{
		{Type: unix.RTA_DST, Data: h.Dst.Addr().AsSlice()},
		{Type: unix.RTA_SRC, Data: h.Src.Addr().AsSlice()},
	}
	if device, err := net.InterfaceByName(in); err == nil {
		attrs = append(attrs, netlink.Attribute{Type: unix.RTA_IIF, Data: binary.NativeEndian.AppendUint32(nil, uint32(device.Index))})
	}
	body, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return nil
	}
	bits := byte(h.Dst.Addr().BitLen())
	request := append([]byte{family, bits, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0}, body...)
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request},
		Data:   request,
	})
	var refused *netlink.OpError
	switch {
	case errors.As(err, &refused):
		return explainRoute(refused.Err, h.Dst.Addr())
	case err != nil || len(answers) == 0 || len(answers[0].Data) < rtmsg:
		return nil
	}
	switch answers[0].Data[rtmsgType] {
	case unix.RTN_UNREACHABLE, unix.RTN_BLACKHOLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		return fmt.Errorf("its route forbids %s", h.Dst.Addr())
	}
	return nil
}

// explainRoute puts the kernel's reason in words (route.c, ip_route_input_slow).
func explainRoute(err error, dst netip.Addr) error {
	switch {
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("the reverse path filter refuses its source: %w", err)
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return fmt.Errorf("no route to %s: %w", dst, err)
	}
	return err
}
