// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// loopback is the index of lo, in every namespace.
const loopback = 1

// ourMetric tells our routes of IPv6 from the kernel's, whose is 0.
const ourMetric = 1

// yield lets new connections of this node's processes to an address of the device come
// from another one: the kernel would choose the address itself, with which they would
// end. Routes in the table local say what it chooses (ip-route(8), src).
//
//	ip route replace local 10.96.0.10 dev kube-ipvs0 table local src 192.0.2.10
//	ip -6 route replace local fd00:10:96::a dev lo metric 1 table local src 2001:db8::10
//	ip -6 route delete local fd00:10:96::a dev kube-ipvs0 table local
//
// In IPv6 the kernel's own route cannot be replaced, and kube-ipvs0, which is down,
// cannot have another one.
func (d *Device) yield() error {
	return d.routes(func(conn *netlink.Conn, a netip.Addr) error {
		from := d.own[a.Is4()]
		if !from.IsValid() {
			return nil // nothing to come from
		}
		source := wire.AppendAttr(nil, unix.RTA_PREFSRC, from.AsSlice()...)
		if a.Is4() {
			return route(conn, unix.RTM_NEWROUTE, a, d.Index, source)
		}
		if err := route(conn, unix.RTM_NEWROUTE, a, loopback, append(source, metric(ourMetric)...)); err != nil {
			return err
		}
		return route(conn, unix.RTM_DELROUTE, a, d.Index, nil)
	})
}

// unroute deletes what yield has added and does not go with the device.
func (d *Device) unroute() error {
	return d.routes(func(conn *netlink.Conn, a netip.Addr) error {
		if a.Is4() {
			return nil
		}
		return route(conn, unix.RTM_DELROUTE, a, loopback, metric(ourMetric))
	})
}

func (d *Device) routes(do func(conn *netlink.Conn, a netip.Addr) error) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return explain("open rtnetlink", err)
	}
	defer conn.Close()
	for _, a := range d.Addrs {
		if err := do(conn, a); err != nil {
			return explain("route to "+a.String()+" of "+device, permission(err))
		}
	}
	return nil
}

// route adds or deletes a local route. Deleting one that is not there is no error.
func route(conn *netlink.Conn, typ netlink.HeaderType, to netip.Addr, index int, more []byte) error {
	family, flags := uint8(unix.AF_INET), netlink.Request|netlink.Acknowledge
	if to.Is6() {
		family = unix.AF_INET6
	}
	if typ == unix.RTM_NEWROUTE {
		flags |= netlink.Create | netlink.Replace
	}
	data := []byte{family, uint8(to.BitLen()), 0, 0, unix.RT_TABLE_LOCAL, unix.RTPROT_KERNEL, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	data = wire.AppendAttr(data, unix.RTA_DST, to.AsSlice()...)
	data = wire.AppendAttr(data, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index))...)
	_, err := conn.Execute(netlink.Message{Header: netlink.Header{Type: typ, Flags: flags}, Data: append(data, more...)})
	if typ == unix.RTM_DELROUTE && errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func metric(n uint32) []byte {
	return wire.AppendAttr(nil, unix.RTA_PRIORITY, binary.NativeEndian.AppendUint32(nil, n)...)
}
