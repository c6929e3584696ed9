// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/controller/doctor"
	"github.com/kube-nft/kube-nft/nft"
)

// interfaces lists interfaces with their addresses.
func (g *gatherer) interfaces() {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		g.gap("interfaces", err)
		return
	}
	defer conn.Close()
	links, err := links(conn)
	if err != nil {
		g.gap("interfaces", err)
		return
	}
	answers, err := conn.Execute(routeRequest(unix.RTM_GETADDR, netlink.Dump, make([]byte, unix.SizeofIfAddrmsg)))
	if err != nil {
		g.gap("addresses of interfaces", err)
	}
	at := make(map[uint32]int)
	for _, l := range links {
		at[l.index] = len(g.facts.Interfaces)
		g.facts.Interfaces = append(g.facts.Interfaces, l.Interface)
	}
	for _, m := range answers {
		if index, prefix, ok := decodeAddr(m.Data); ok {
			if i, known := at[index]; known {
				g.facts.Interfaces[i].Prefixes = append(g.facts.Interfaces[i].Prefixes, prefix)
			}
		}
	}
}

func routeRequest(typ netlink.HeaderType, flags netlink.HeaderFlags, data []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request | flags}, Data: data}
}

// link is an interface and its index.
type link struct {
	doctor.Interface
	index uint32
}

func links(conn *netlink.Conn) (all []link, err error) {
	answers, err := conn.Execute(routeRequest(unix.RTM_GETLINK, netlink.Dump, make([]byte, unix.SizeofIfInfomsg)))
	if err != nil {
		return nil, err
	}
	for _, m := range answers {
		if len(m.Data) < unix.SizeofIfInfomsg {
			continue
		}
		l := link{index: binary.NativeEndian.Uint32(m.Data[4:])}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofIfInfomsg:])
		if err != nil {
			return nil, err
		}
		for ad.Next() {
			switch ad.Type() {
			case unix.IFLA_IFNAME:
				l.Name = ad.String()
			case unix.IFLA_LINKINFO:
				ad.Nested(func(info *netlink.AttributeDecoder) error {
					for info.Next() {
						if info.Type() == unix.IFLA_INFO_KIND {
							l.Bridge = info.String() == "bridge"
						}
					}
					return nil
				})
			}
		}
		if err := ad.Err(); err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

func decodeAddr(data []byte) (index uint32, p netip.Prefix, ok bool) {
	if len(data) < unix.SizeofIfAddrmsg {
		return 0, p, false
	}
	bits, index := int(data[1]), binary.NativeEndian.Uint32(data[4:])
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return 0, p, false
	}
	for ad.Next() {
		if ad.Type() == unix.IFA_ADDRESS || ad.Type() == unix.IFA_LOCAL {
			if a, valid := netip.AddrFromSlice(ad.Bytes()); valid {
				p, ok = netip.PrefixFrom(a, bits), true
			}
		}
	}
	return index, p, ok
}

// routes asks where packets to endpoints go, and by which interface the outside is
// reached, and reads the marks that policy routing asks for.
func (g *gatherer) routes() {
	g.facts.Routes, g.facts.Uplinks = make(map[netip.Addr]doctor.Route), make(map[nft.Family]string)
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		g.gap("routes", err)
		return
	}
	defer conn.Close()
	all, err := links(conn)
	if err != nil {
		g.gap("routes", err)
		return
	}
	names := make(map[uint32]string)
	for _, l := range all {
		names[l.index] = l.Name
	}
	outside := map[nft.Family]netip.Addr{nft.IPv4: netip.MustParseAddr("192.0.2.1"), nft.IPv6: netip.MustParseAddr("2001:db8::1")}
	for _, family := range g.facts.Families {
		if r, err := routeTo(conn, outside[family.Family], names); err == nil {
			g.facts.Uplinks[family.Family] = r.Out
		}
		addrs := family.LocalEndpoints
		for _, e := range family.Endpoints {
			addrs = append(addrs[:len(addrs):len(addrs)], e.To.Addr())
		}
		for _, a := range addrs {
			if _, known := g.facts.Routes[a]; known {
				continue
			}
			if r, err := routeTo(conn, a, names); err == nil {
				g.facts.Routes[a] = r
			}
		}
		g.markRules(conn, family.Family)
	}
}

// routeTo asks the kernel's routing table for one address.
func routeTo(conn *netlink.Conn, to netip.Addr, names map[uint32]string) (r doctor.Route, err error) {
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1] = unix.AF_INET, uint8(to.BitLen())
	if to.Is6() {
		header[0] = unix.AF_INET6
	}
	ae := netlink.NewAttributeEncoder()
	ae.Bytes(unix.RTA_DST, to.AsSlice())
	attrs, err := ae.Encode()
	if err != nil {
		return r, err
	}
	answers, err := conn.Execute(routeRequest(unix.RTM_GETROUTE, 0, append(header, attrs...)))
	if err != nil {
		return r, fmt.Errorf("route to %s: %w", to, err)
	}
	for _, m := range answers {
		if len(m.Data) < unix.SizeofRtMsg {
			continue
		}
		switch m.Data[7] { // rtm_type
		case unix.RTN_LOCAL:
			r.Local = true
		case unix.RTN_UNICAST:
		default:
			return r, errors.New("no route")
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
		if err != nil {
			return r, err
		}
		for ad.Next() {
			if ad.Type() == unix.RTA_OIF {
				r.Out = names[ad.Uint32()]
			}
		}
	}
	return r, nil
}

// markRules lists the rules of policy routing that ask for a mark.
func (g *gatherer) markRules(conn *netlink.Conn, f nft.Family) {
	header := make([]byte, unix.SizeofRtMsg) // struct fib_rule_hdr is as long
	header[0] = unix.AF_INET
	if f == nft.IPv6 {
		header[0] = unix.AF_INET6
	}
	answers, err := conn.Execute(routeRequest(unix.RTM_GETRULE, netlink.Dump, header))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		g.gap("policy routing of family "+f.String(), err)
		return
	}
	for _, m := range answers {
		if len(m.Data) < unix.SizeofRtMsg {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[unix.SizeofRtMsg:])
		if err != nil {
			continue
		}
		r := doctor.MarkRule{Family: f}
		for ad.Next() {
			switch ad.Type() {
			case unix.FRA_PRIORITY:
				r.Priority = ad.Uint32()
			case unix.FRA_FWMARK:
				r.Mark = ad.Uint32()
			case unix.FRA_FWMASK:
				r.Mask = ad.Uint32()
			}
		}
		if r.Mask != 0 && r.Mark != 0 {
			g.facts.MarkRules = append(g.facts.MarkRules, r)
		}
	}
}
