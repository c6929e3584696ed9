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
	return d, local, nil
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
