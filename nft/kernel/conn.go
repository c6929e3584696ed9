// SPDX-License-Identifier: Apache-2.0

// Package kernel is the only code that speaks to nf_tables: it reads our tables,
// changes them in atomic transactions, and hears of changes by others.
//
// What it does not do: decide what the tables should hold, or touch any table
// that is not ours. Errno values are looked at here and become the package's
// errors; callers branch on those.
package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// Options say where and how to speak to the kernel.
type Options struct {
	// NetNS is a descriptor of the network namespace; 0 is the calling thread's own.
	NetNS int
}

// Conn is a connection to the nf_tables of one network namespace. Its methods
// may be called from several goroutines; one transaction runs at a time.
type Conn struct {
	options Options
	socket  *netlink.Conn
	raw     syscall.RawConn

	mu     sync.Mutex
	batch  batch
	answer []byte // room for what the kernel says, one datagram at a time
	room   int    // the socket's send buffer
	// commits counts our transactions, see Others.
	commits uint32
}

// header is a netlink message's header (RFC 3549, section 2.2).
type header = unix.NlMsghdr

// receiveBuffer holds the answers to a request for many elements; the kernel
// bounds one dump datagram to 32 kB (af_netlink.c, netlink_dump).
const (
	receiveBuffer = 8 << 20
	datagram      = 64 << 10
)

// Open connects to the nf_tables of a namespace. It does not need privileges;
// using the connection does.
func Open(o Options) (*Conn, error) {
	socket, err := dial(o)
	if err != nil {
		return nil, err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	c := &Conn{options: o, socket: socket, raw: raw, answer: make([]byte, datagram)}
	c.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	return c, nil
}

func dial(o Options) (*netlink.Conn, error) {
	socket, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: o.NetNS})
	if err != nil {
		if errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, fmt.Errorf("%w: no netfilter netlink: enable CONFIG_NETFILTER_NETLINK", ErrUnsupported)
		}
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	// Errors come with the place and without a copy of the request; kernels
	// without these options still send the errno.
	_ = socket.SetOption(netlink.ExtendedAcknowledge, true)
	_ = socket.SetOption(netlink.CapAcknowledge, true)
	return socket, nil
}

// Close closes the connection; what was programmed stays.
func (c *Conn) Close() error { return c.socket.Close() }

// setBuffer sets a buffer size, beyond the machine's limit if allowed.
func (c *Conn) setBuffer(force, plain, size int) error {
	var err error
	ctlErr := c.raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, size); err != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, plain, size)
		}
	})
	return errors.Join(ctlErr, err)
}

// sendRoom makes sure that a write of n bytes fits: the kernel takes a message
// whole or not at all.
func (c *Conn) sendRoom(n int) {
	if n <= c.room {
		return
	}
	size := max(n+n/4, 1<<20)
	if c.setBuffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, size) == nil {
		c.room = size
	}
}

// send writes the batch in one go. The kernel has worked it off, and its answers
// are waiting, when the write returns (nfnetlink.c, nfnetlink_rcv).
func (c *Conn) send() error {
	c.sendRoom(len(c.batch.buf))
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		for {
			err = unix.Sendto(int(fd), c.batch.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if err != unix.EINTR {
				// EAGAIN is an error, too: no event would tell when to try again, since
				// the socket was writable before.
				return true
			}
		}
	})
	if werr != nil {
		return werr
	}
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("transaction of %d bytes is larger than the socket allows: raise net.core.wmem_max: %w", len(c.batch.buf), err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("changing nftables needs CAP_NET_ADMIN, run as root or give the container that capability: %w", fs.ErrPermission)
	}
	return err
}

// answerLimit is how long the kernel may take for the next datagram of an answer. It
// writes the first one before a request returns, and each other one when the one
// before is read, so that this is for what should not happen: an answer that never
// comes would hold up all that follows.
const answerLimit = 2 * time.Second

// answered is receive for the first datagram of an answer, for which it waits up to
// answerLimit.
func (c *Conn) answered(f func(header unix.NlMsghdr, body []byte) bool) error {
	if err := c.socket.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return fmt.Errorf("receive from nftables: %w", err)
	}
	defer c.socket.SetReadDeadline(time.Time{})
	err := c.receive(true, f)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: no answer within %v", ErrUnknown, answerLimit)
	}
	return err
}

// receive hands each message that is waiting to f, until there is none left or
// f returns false. If wait is set it waits for the first datagram.
func (c *Conn) receive(wait bool, f func(header unix.NlMsghdr, body []byte) bool) error {
	var err error
	rerr := c.raw.Read(func(fd uintptr) bool {
		for more := true; more; {
			var n int
			switch n, err = unix.Read(int(fd), c.answer); {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN && wait:
				return false
			case err != nil:
				return true
			}
			if more, err = messages(c.answer[:n], f); err != nil {
				return true
			}
		}
		return true
	})
	switch {
	case rerr != nil:
		return rerr
	case err == unix.ENOBUFS:
		return fmt.Errorf("%w: answers lost: %w", ErrUnknown, err)
	case err != nil && err != unix.EAGAIN:
		return fmt.Errorf("receive from nftables: %w", err)
	}
	return nil
}

// messages walks the messages of a datagram; more is false if f wants no more.
func messages(b []byte, f func(header unix.NlMsghdr, body []byte) bool) (more bool, err error) {
	for len(b) >= wire.HeaderLen {
		h, body, rest, ok := wire.Next(b)
		if !ok {
			return false, fmt.Errorf("message of %d bytes in %d", h.Len, len(b))
		}
		if !f(h, body) {
			return false, nil
		}
		b = rest
	}
	return true, nil
}

// drain forgets answers that an interrupted exchange left behind.
func (c *Conn) drain() {
	_ = c.receive(false, func(unix.NlMsghdr, []byte) bool { return true })
}

// decodeError reads a NLMSG_ERROR body: the errno, and with extended
// acknowledgements the kernel's words and the offset of the fault.
func decodeError(h unix.NlMsghdr, body []byte) (errno unix.Errno, detail string, offset uint32) {
	if len(body) < 4+wire.HeaderLen {
		return unix.EBADMSG, "", 0
	}
	errno = unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	rest := body[4:]
	if h.Flags&unix.NLM_F_CAPPED != 0 {
		rest = rest[wire.HeaderLen:]
	} else if n := int(binary.NativeEndian.Uint32(rest)); n <= len(rest) {
		rest = rest[n:]
	}
	if h.Flags&unix.NLM_F_ACK_TLVS == 0 {
		return errno, "", 0
	}
	for typ, v := range wire.Attrs(rest) {
		switch {
		case typ == unix.NLMSGERR_ATTR_MSG:
			detail = wire.String(v)
		case typ == unix.NLMSGERR_ATTR_OFFS && len(v) == 4:
			offset = binary.NativeEndian.Uint32(v)
		}
	}
	return errno, detail, offset
}

// answers reads the answers to a batch whose last message asked for one.
func (c *Conn) answers() error {
	var failed *CommitError
	acked := false
	err := c.receive(false, func(h unix.NlMsghdr, body []byte) bool {
		if h.Type != unix.NLMSG_ERROR {
			return true
		}
		errno, detail, offset := decodeError(h, body)
		switch {
		case errno == 0:
			acked = true
		case failed == nil:
			failed = &CommitError{Message: c.batch.describe(int(h.Seq)-1, offset), Errno: errno, Detail: detail}
		}
		return true
	})
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return err
	case !acked:
		return fmt.Errorf("%w: no answer", ErrUnknown)
	}
	c.commits++
	return nil
}
