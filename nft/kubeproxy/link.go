// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// findDevice finds kube-ipvs0, and the other addresses of this host. A device of that
// name that is no dummy is not kube-proxy's.
func findDevice() (d *Device, local map[netip.Addr]bool, err error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, nil, explain("list devices", err)
	}
	local = make(map[netip.Addr]bool)
	for _, link := range links {
		addrs, err := link.Addrs()
		if err != nil {
			continue // it is gone
		}
		if link.Name == device {
			dummy, err := isDummy(link.Index)
			if err != nil {
				return nil, nil, err
			}
			if dummy {
				// The kernel gives a device its own link-local address.
				bound := slices.DeleteFunc(plain(addrs), func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() })
				d = &Device{Index: link.Index, Addrs: bound}
				continue
			}
		}
		for _, a := range plain(addrs) {
			local[a] = true
		}
	}
	if d != nil {
		d.own = map[bool]netip.Addr{true: ownAddr("udp4", "192.0.2.1:9", local), false: ownAddr("udp6", "[2001:db8::1]:9", local)}
	}
	return d, local, nil
}

// ownAddr is the address that this host's packets come from: that of those to the
// outside, else the lowest. Connecting a UDP socket sends nothing; the destinations are
// documentation addresses (RFC 5737, RFC 3849).
func ownAddr(network, outside string, local map[netip.Addr]bool) (own netip.Addr) {
	if conn, err := net.Dial(network, outside); err == nil {
		defer conn.Close()
		if a := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(); local[a] && !a.IsLoopback() {
			return a
		}
	}
	for a := range local {
		if a.Is4() == (network == "udp4") && a.IsGlobalUnicast() && (!own.IsValid() || a.Less(own)) {
			own = a
		}
	}
	return own
}

// plain returns addresses without their prefixes.
func plain(addrs []net.Addr) (all []netip.Addr) {
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, addr.Unmap())
			}
		}
	}
	return all
}

// aboutLink sends a request of rtnetlink about one device.
func aboutLink(typ netlink.HeaderType, flags netlink.HeaderFlags, index int) ([]netlink.Message, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	info := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(info[4:], uint32(index))
	return conn.Execute(netlink.Message{
		Header: netlink.Header{Type: typ, Flags: netlink.Request | flags}, Data: info,
	})
}

func isDummy(index int) (bool, error) {
	answers, err := aboutLink(unix.RTM_GETLINK, 0, index)
	switch {
	case errors.Is(err, unix.ENODEV):
		return false, nil
	case err != nil:
		return false, explain("read device "+device, err)
	}
	for _, m := range answers {
		if len(m.Data) >= unix.SizeofIfInfomsg {
			info := wire.First(m.Data[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO)
			return wire.String(wire.First(info, unix.IFLA_INFO_KIND)) == "dummy", nil
		}
	}
	return false, fmt.Errorf("read device %s: no answer", device)
}

// remove removes the device, and with it its addresses. One that is gone is no error.
func (d *Device) remove() error {
	if err := d.unroute(); err != nil {
		return err
	}
	_, err := aboutLink(unix.RTM_DELLINK, netlink.Acknowledge, d.Index)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return explain("remove device "+device, permission(err))
}
