// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

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
				d = &Device{Index: link.Index, Addrs: plain(addrs)}
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
		if a.Is4() == (network == "udp4") && !a.IsLoopback() && (!own.IsValid() || a.Less(own)) {
			own = a
		}
	}
	return own
}

// plain leaves out link-local addresses, which the kernel gives a device.
func plain(addrs []net.Addr) (all []netip.Addr) {
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok && !addr.Unmap().IsLinkLocalUnicast() {
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
			return cstring(wire.First(info, unix.IFLA_INFO_KIND)) == "dummy", nil
		}
	}
	return false, fmt.Errorf("read device %s: no answer", device)
}

// remove removes the device, and with it its addresses. One that is gone is no error.
func (d *Device) remove() error {
	_, err := aboutLink(unix.RTM_DELLINK, netlink.Acknowledge, d.Index)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return explain("remove device "+device, permission(err))
}

// yield lets new connections of this node's processes to an address of the device come
// from another one: the kernel would choose the address itself, with which they would
// end. Routes in the table local say what it chooses (ip-route(8), src).
func (d *Device) yield() error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return explain("open rtnetlink", err)
	}
	defer conn.Close()
	for _, a := range d.Addrs {
		from := d.own[a.Is4()]
		if !from.IsValid() {
			continue // nothing to come from
		}
		if err := d.route(conn, a, from); err != nil {
			return explain(fmt.Sprintf("route %s from %s", a, from), permission(err))
		}
	}
	return nil
}

// route sets where packets to an address of the device come from, as
//
//	ip route replace local 10.96.0.10 dev kube-ipvs0 table local src 192.0.2.10
//
// does.
func (d *Device) route(conn *netlink.Conn, to, from netip.Addr) error {
	family, bits := uint8(unix.AF_INET), uint8(to.BitLen())
	if to.Is6() {
		family = unix.AF_INET6
	}
	header := []byte{family, bits, 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_KERNEL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	data := wire.AppendAttr(header, unix.RTA_DST, to.AsSlice()...)
	data = wire.AppendAttr(data, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(d.Index))...)
	add := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWROUTE, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Replace},
		Data:   wire.AppendAttr(append([]byte(nil), data...), unix.RTA_PREFSRC, from.AsSlice()...),
	}
	_, err := conn.Execute(add)
	return err
}
