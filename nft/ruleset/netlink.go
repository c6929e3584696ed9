// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// ErrUnsupported says that the kernel has no nf_tables.
var ErrUnsupported = errors.New("this kernel has no nf_tables")

// conn asks nf_tables for lists. Unlike netlink.Conn.Receive it hands on each
// message as it comes: a list may be 100 MB.
type conn struct {
	socket *netlink.Conn
	raw    syscall.RawConn
	answer []byte
	seq    uint32
}

// datagram holds one part of a list, which the kernel bounds to 32 kB
// (af_netlink.c, netlink_dump).
const datagram = 64 << 10

func dial() (*conn, error) {
	socket, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("%w: enable CONFIG_NETFILTER_NETLINK and CONFIG_NF_TABLES", ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &conn{socket: socket, raw: raw, answer: make([]byte, datagram)}, nil
}

func (c *conn) close() { c.socket.Close() }

// errEnough is returned by a callback of list that wants no more. The connection
// has an unfinished list then, and is of no use.
var errEnough = errors.New("enough")

// list asks for a list and hands each entry on, with its family. It reports
// whether the list was interrupted: then an entry may be missing or be there twice.
func (c *conn) list(ctx context.Context, typ uint16, family Family, attrs []byte, f func(family Family, body []byte) error) (interrupted bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := c.send(typ, family, attrs); err != nil {
		return false, err
	}
	for {
		n, err := c.read()
		if err != nil {
			return interrupted, fmt.Errorf("receive from nftables: %w", err)
		}
		for b := c.answer[:n]; len(b) > 0; {
			h, body, rest, ok := wire.Next(b)
			if !ok {
				return interrupted, errors.New("receive from nftables: a message that does not fit its datagram")
			}
			b = rest
			if h.Seq != c.seq {
				continue
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case h.Type == unix.NLMSG_DONE:
				return interrupted, nil
			case h.Type == unix.NLMSG_ERROR:
				return interrupted, errnoOf(body)
			case len(body) < wire.FamilyLen:
				continue
			}
			if err := f(Family(body[0]), body[wire.FamilyLen:]); err != nil {
				return interrupted, err
			}
		}
	}
}

func (c *conn) send(typ uint16, family Family, attrs []byte) error {
	c.seq++
	n := wire.HeaderLen + wire.FamilyLen + len(attrs)
	b := binary.NativeEndian.AppendUint32(nil, uint32(n))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_NFTABLES<<8|typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = binary.NativeEndian.AppendUint32(b, c.seq)
	b = append(b, 0, 0, 0, 0, uint8(family), unix.NFNETLINK_V0, 0, 0)
	b = append(b, attrs...)
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return err != unix.EAGAIN
	})
	if err = errors.Join(werr, err); errors.Is(err, unix.EPERM) {
		return errPermission
	}
	return err
}

var errPermission = fmt.Errorf("nftables cannot be read: run as root, or give the container CAP_NET_ADMIN: %w", fs.ErrPermission)

func (c *conn) read() (n int, err error) {
	rerr := c.raw.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), c.answer); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	return n, errors.Join(rerr, err)
}

func errnoOf(body []byte) error {
	if len(body) < 4 {
		return unix.EBADMSG
	}
	switch errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); errno {
	case 0:
		return nil
	case unix.EPERM:
		return errPermission
	case unix.EINVAL:
		// nfnetlink answers so where nobody registered nf_tables and the module
		// cannot be loaded (nfnetlink.c, nfnetlink_rcv_msg).
		return fmt.Errorf("%w, or its module cannot be loaded: %w", ErrUnsupported, errno)
	default:
		return errno
	}
}

// named is an attribute that holds a name.
func named(b []byte, typ uint16, name string) []byte {
	return wire.AppendAttr(b, typ, append([]byte(name), 0)...)
}
