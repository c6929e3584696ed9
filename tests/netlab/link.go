// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// operUp is IF_OPER_UP of linux/if.h.
const operUp = 6

// up brings an interface up. A neighbour on it that misses the first question for
// its address is asked again after a tenth of a second instead of one.
func (n *Namespace) up(ifname string) error {
	return n.Do(func() error {
		for _, family := range []string{"ipv4", "ipv6"} {
			err := writeSysctl("net/"+family+"/neigh/"+ifname+"/retrans_time_ms", "100")
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return linkUp(ifname)
	})
}

// awaitUp waits until an interface passes packets. The carrier of a veth pair
// is there at once, but the interface drops everything until the kernel has
// noticed. It looks once per second, or when asked for the link (since Linux
// 6.8), which makes this immediate.
func (n *Namespace) awaitUp(ifname string) error {
	look := func() error {
		state, err := linkState(ifname)
		if err == nil && state != operUp {
			err = fmt.Errorf("%s: interface %s is in operational state %d", n.name, ifname, state)
		}
		return err
	}
	return Poll(5*time.Second, func() error { return n.Do(look) })
}

// linkUp brings an interface of the calling thread's namespace up.
func linkUp(ifname string) error {
	req, err := unix.NewIfreq(ifname)
	if err != nil {
		return fmt.Errorf("bring up interface %s: %w", ifname, err)
	}
	err = withSocket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
		if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
			return err
		}
		req.SetUint16(req.Uint16() | unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	})
	if err != nil {
		return fmt.Errorf("bring up interface %s: %w", ifname, err)
	}
	return nil
}

// linkState returns the operational state (RFC 2863) of an interface of the
// calling thread's namespace.
func linkState(ifname string) (state uint8, err error) {
	err = withSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE, func(fd int) error {
		kernel := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
		if err := unix.Sendto(fd, getLink(ifname), 0, kernel); err != nil {
			return err
		}
		buf := make([]byte, 32<<10)
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		state, err = parseLinkState(buf[:n])
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("read state of interface %s: %w", ifname, err)
	}
	return state, nil
}

// getLink returns an RTM_GETLINK request.
func getLink(ifname string) []byte {
	ne := binary.NativeEndian
	attr := ne.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(ifname)+1))
	attr = ne.AppendUint16(attr, unix.IFLA_IFNAME)
	attr = append(append(attr, ifname...), 0)
	for len(attr)%unix.RTA_ALIGNTO != 0 {
		attr = append(attr, 0)
	}
	msg := ne.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+unix.SizeofIfInfomsg+len(attr)))
	msg = ne.AppendUint16(msg, unix.RTM_GETLINK)
	msg = ne.AppendUint16(msg, unix.NLM_F_REQUEST)
	msg = append(msg, make([]byte, 8+unix.SizeofIfInfomsg)...) // sequence, port; any index
	return append(msg, attr...)
}

// parseLinkState returns the operational state in the reply to getLink.
func parseLinkState(reply []byte) (uint8, error) {
	msgs, err := syscall.ParseNetlinkMessage(reply)
	if err != nil {
		return 0, err
	}
	for i := range msgs {
		if msgs[i].Header.Type == unix.NLMSG_ERROR && len(msgs[i].Data) >= 4 {
			errno := -int32(binary.NativeEndian.Uint32(msgs[i].Data))
			return 0, unix.Errno(errno)
		}
		attrs, err := syscall.ParseNetlinkRouteAttr(&msgs[i])
		if err != nil {
			return 0, err
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.IFLA_OPERSTATE && len(a.Value) == 1 {
				return a.Value[0], nil
			}
		}
	}
	return 0, errors.New("no state in the reply")
}

// withSocket calls f with a socket of the calling thread's namespace.
func withSocket(domain, typ, proto int, f func(fd int) error) error {
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}
