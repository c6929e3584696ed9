// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// connect returns a connected socket of the namespace. Only its creation
// happens on the thread of the namespace: net.Dialer would hold that thread
// until the handshake is done.
func (n *Namespace) connect(ctx context.Context, network string, dst netip.AddrPort, o options) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	deadline := earlier(ctx, time.Now().Add(o.timeout))
	fd, err := n.socket(network, dst.Addr())
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), network) // not blocking, so the runtime polls it
	defer f.Close()
	if network == "sctp" {
		// The ports are in the packets. In the address of a raw IPv6 socket
		// the port would mean the protocol.
		o.port, dst = 0, netip.AddrPortFrom(dst.Addr(), 0)
	}
	if err := prepareSocket(fd, network, dst.Addr(), o); err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, sockaddr(dst)); errors.Is(err, unix.EINPROGRESS) {
		err = awaitConnect(ctx, f, deadline)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, withCause(fd, err)
		}
	} else if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	if network == "tcp" {
		// On an established connection an ICMP error would be fatal.
		if err := receiveErrors(fd, dst.Addr().Is4(), false); err != nil {
			return nil, os.NewSyscallError("setsockopt", err)
		}
	}
	return net.FileConn(f)
}

// socket creates a socket in the namespace.
func (n *Namespace) socket(network string, addr netip.Addr) (fd int, err error) {
	domain, typ, proto := unix.AF_INET, 0, 0
	if !addr.Is4() {
		domain = unix.AF_INET6
	}
	switch network {
	case "tcp":
		typ = unix.SOCK_STREAM
	case "udp":
		typ = unix.SOCK_DGRAM
	case "sctp":
		typ, proto = unix.SOCK_RAW, unix.IPPROTO_SCTP
	default:
		return 0, net.UnknownNetworkError(network)
	}
	err = n.Do(func() error {
		fd, err = unix.Socket(domain, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
		return os.NewSyscallError("socket", err)
	})
	return fd, err
}

// prepareSocket sets options and binds the source.
func prepareSocket(fd int, network string, dst netip.Addr, o options) error {
	if err := receiveErrors(fd, dst.Is4(), true); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if !o.source.IsValid() && o.port == 0 {
		return nil
	}
	source := o.source
	if !source.IsValid() {
		source = netip.IPv4Unspecified()
		if !dst.Is4() {
			source = netip.IPv6Unspecified()
		}
	}
	var err error
	switch {
	case network == "sctp": // a raw socket has no ports
	case o.port == 0:
		// Let connect choose a port that is free towards this destination
		// instead of one that is free towards all.
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	case network == "tcp":
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, o.port))))
}

// awaitConnect waits until the handshake has ended one way or the other.
func awaitConnect(ctx context.Context, f *os.File, deadline time.Time) error {
	if err := f.SetWriteDeadline(deadline); err != nil {
		return err
	}
	stop := onCancel(ctx, f.SetWriteDeadline)
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		errno, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		if err != nil {
			failed = os.NewSyscallError("connect", err)
			return true
		}
		// Writable is not enough, a socket is so before it connects as well.
		_, err = unix.Getpeername(int(fd))
		return err == nil
	})
	return errors.Join(failed, err)
}

// sockaddr returns an address as the kernel wants it. Zones are not supported.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
