// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// datagram has room for one of the kernel's, which are at most 32 kB
// (af_netlink.c, netlink_dump).
const datagram = 64 << 10

// socket is a netlink socket that is read one datagram at a time:
// netlink.Conn.Receive would collect a listing as a whole. It is opened when it is
// needed, and after an exchange that did not come to its end.
type socket struct {
	conn   *netlink.Conn
	raw    syscall.RawConn
	seq    uint32 // of the last request
	answer []byte
}

// open makes sure that the socket is open.
func (s *socket) open(o Options) error {
	if s.conn != nil {
		return nil
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: o.NetNS})
	if err != nil {
		return fmt.Errorf("open conntrack: %w", err)
	}
	// Answers without a copy of the request; they are right with it, too.
	_ = conn.SetOption(netlink.CapAcknowledge, true)
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return fmt.Errorf("open conntrack: %w", err)
	}
	s.conn, s.raw = conn, raw
	if s.answer == nil {
		s.answer = make([]byte, datagram)
	}
	return nil
}

// close closes the socket; the next exchange opens it again.
func (s *socket) close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn, s.raw = nil, nil
	return err
}

// send writes requests. The kernel has worked them off when it returns, a listing
// excepted, of which it then has only written the beginning.
func (s *socket) send(b []byte) error {
	var err error
	werr := s.raw.Write(func(fd uintptr) bool {
		for {
			err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if err != unix.EINTR {
				// EAGAIN is an error, too: no event would tell when to try again, since
				// the socket was writable before.
				return true
			}
		}
	})
	return errors.Join(werr, err)
}

// answerLimit is how long the kernel may take for the next datagram of an answer. It
// writes the first one before a request returns, and each other one when the one
// before is read, so that this is for what should not happen: a walk that never ends
// would keep all others from flows that are stale.
const answerLimit = 2 * time.Second

// receive waits for a datagram, which is good until the next call.
func (s *socket) receive() ([]byte, error) {
	if err := s.conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return nil, err
	}
	return s.read()
}

// read waits for a datagram for as long as it takes: one that nobody asked for.
func (s *socket) read() ([]byte, error) {
	var n int
	var err error
	rerr := s.raw.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), s.answer); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if err := errors.Join(rerr, err); err != nil {
		return nil, err
	}
	return s.answer[:n], nil
}

// explain names the mend for what the kernel refuses.
func explain(errno unix.Errno) error {
	switch errno {
	case unix.EPERM:
		return fmt.Errorf("needs CAP_NET_ADMIN, run as root or give the container that capability: %w", fs.ErrPermission)
	case unix.EINVAL, unix.EOPNOTSUPP:
		return fmt.Errorf("%w: the kernel may lack CONFIG_NF_CT_NETLINK", errno)
	}
	return errno
}
