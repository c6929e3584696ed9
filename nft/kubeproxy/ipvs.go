// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Of linux/ip_vs.h, generic netlink.
const (
	ipvsName       = "IPVS"
	ipvsVersion    = 1
	ipvsDelService = 3
	ipvsGetService = 4
	ipvsGetDest    = 8

	ipvsAttrService = 1
	ipvsAttrDest    = 2

	serviceFamily    = 1
	serviceProto     = 2
	serviceAddr      = 3
	servicePort      = 4
	serviceFWMark    = 5
	serviceScheduler = 6

	destActive   = 7
	destInactive = 8

	genericHeader = 4 // struct genlmsghdr
)

// ipvs is a socket to the IPVS of this namespace.
type ipvs struct {
	conn   *netlink.Conn
	family uint16 // the number of the generic family
}

// openIPVS returns nil where IPVS is not loaded: to ask for it would load it.
func openIPVS() (*ipvs, error) {
	if _, err := os.Stat("/proc/thread-self/net/ip_vs"); err != nil {
		return nil, nil
	}
	conn, err := netlink.Dial(unix.NETLINK_GENERIC, nil)
	if err != nil {
		return nil, explain("open IPVS", err)
	}
	v := &ipvs{conn: conn, family: unix.GENL_ID_CTRL}
	answers, err := v.execute(unix.CTRL_CMD_GETFAMILY, 0, text(unix.CTRL_ATTR_FAMILY_NAME, ipvsName))
	if err == nil {
		for _, body := range answers {
			if id := wire.First(body, unix.CTRL_ATTR_FAMILY_ID); len(id) == 2 {
				v.family = binary.NativeEndian.Uint16(id)
				return v, nil
			}
		}
		err = errors.New("it has no number")
	}
	conn.Close()
	return nil, explain("find the generic family IPVS", err)
}

// execute sends a request, and returns the attributes of the answers.
func (v *ipvs) execute(command uint8, flags netlink.HeaderFlags, attrs []byte) (bodies [][]byte, err error) {
	answers, err := v.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(v.family), Flags: netlink.Request | flags},
		Data:   append([]byte{command, ipvsVersion, 0, 0}, attrs...),
	})
	for _, m := range answers {
		if len(m.Data) >= genericHeader {
			bodies = append(bodies, m.Data[genericHeader:])
		}
	}
	return bodies, permission(err)
}

// services lists the virtual services that are at an address; those of a firewall mark
// are never kube-proxy's.
func (v *ipvs) services() (all []VirtualService, err error) {
	bodies, err := v.execute(ipvsGetService, netlink.Dump, nil)
	if err != nil {
		return nil, explain("list virtual services", err)
	}
	for _, body := range bodies {
		if s, ok := parseService(wire.First(body, ipvsAttrService)); ok {
			all = append(all, s)
		}
	}
	return all, nil
}

// parseService reads a service. IPVS has numbers in the host's order but ports, and 16
// bytes for each address.
func parseService(b []byte) (s VirtualService, ok bool) {
	u16 := func(typ uint16) uint16 {
		if v := wire.First(b, typ); len(v) == 2 {
			return binary.NativeEndian.Uint16(v)
		}
		return 0
	}
	port, addr := wire.First(b, servicePort), wire.First(b, serviceAddr)
	if wire.First(b, serviceFWMark) != nil || len(port) != 2 || len(addr) < 4 {
		return s, false
	}
	s.family, s.Family = u16(serviceFamily), nft.IPv4
	if s.family == unix.AF_INET6 {
		s.Family = nft.IPv6
	} else {
		addr = addr[:4]
	}
	s.Proto, s.Port = nft.Proto(u16(serviceProto)), binary.BigEndian.Uint16(port)
	s.Scheduler = wire.String(wire.First(b, serviceScheduler))
	s.Addr, ok = netip.AddrFromSlice(addr)
	return s, ok
}

// attrs name a service.
func (s *VirtualService) attrs() []byte {
	native := func(v uint16) []byte { return binary.NativeEndian.AppendUint16(nil, v) }
	addr := make([]byte, 16)
	copy(addr, s.Addr.AsSlice())
	b := wire.AppendAttr(nil, serviceFamily, native(s.family)...)
	b = wire.AppendAttr(b, serviceProto, native(uint16(s.Proto))...)
	b = wire.AppendAttr(b, serviceAddr, addr...)
	b = wire.AppendAttr(b, servicePort, binary.BigEndian.AppendUint16(nil, s.Port)...)
	return wire.AppendAttr(nil, ipvsAttrService|unix.NLA_F_NESTED, b...)
}

// destinations counts a service's endpoints and connections.
func (v *ipvs) destinations(s *VirtualService) error {
	bodies, err := v.execute(ipvsGetDest, netlink.Dump, s.attrs())
	if err != nil {
		return explain("list endpoints of "+s.String(), err)
	}
	s.Endpoints, s.Active, s.Inactive = 0, 0, 0
	for _, body := range bodies {
		dest := wire.First(body, ipvsAttrDest)
		number := func(typ uint16) int {
			if v := wire.First(dest, typ); len(v) == 4 {
				return int(binary.NativeEndian.Uint32(v))
			}
			return 0
		}
		s.Endpoints++
		s.Active += number(destActive)
		s.Inactive += number(destInactive)
	}
	return nil
}

// remove removes a service, and with it its endpoints. IPVS drops the packets of their
// connections from then on. One that is gone is no error.
func (v *ipvs) remove(s *VirtualService) error {
	_, err := v.execute(ipvsDelService, netlink.Acknowledge, s.attrs())
	if isGone(err) {
		return nil
	}
	return explain("remove virtual service "+s.String(), err)
}

// isGone says that there is no such virtual service.
func isGone(err error) bool { return errors.Is(err, unix.ESRCH) }

// findServices finds the virtual services of kube-proxy: those at an address that it has
// bound to kube-ipvs0, and those at a local address and a node port of its. All others
// are somebody else's.
func findServices(d *Device, local map[netip.Addr]bool, nodePorts map[nodePort]bool) (found []VirtualService, err error) {
	v, err := openIPVS()
	if v == nil || err != nil {
		return nil, err
	}
	defer v.conn.Close()
	all, err := v.services()
	if err != nil {
		return nil, err
	}
	bound := make(map[netip.Addr]bool)
	if d != nil {
		for _, a := range d.Addrs {
			bound[a] = true
		}
	}
	for _, s := range all {
		if bound[s.Addr] || (local[s.Addr] && nodePorts[nodePort{s.Proto, s.Port}]) {
			if err := v.destinations(&s); err != nil {
				return nil, err
			}
			found = append(found, s)
		}
	}
	return found, nil
}

// frontend is what a virtual service stands for.
func (s *VirtualService) frontend(nodePorts map[nodePort]bool, bound bool) Frontend {
	f := s.Frontend
	if !bound && nodePorts[nodePort{s.Proto, s.Port}] {
		f.Addr = netip.Addr{}
	}
	return f
}

// String names a virtual service as ipvsadm does.
func (s *VirtualService) String() string { return fmt.Sprintf("%s (%s)", s.Frontend, s.Scheduler) }
