// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ICMPError is in the chain of an error from Ask or Dial if an ICMP message, or an
// ICMPv6 one, brought it about. Without it ErrRefused is the answer of a host: a TCP
// reset or an SCTP abort. With SCTP the message may be about another question to the
// same host.
type ICMPError struct {
	Type, Code uint8
}

func (e *ICMPError) Error() string {
	return fmt.Sprintf("ICMP type %d code %d", e.Type, e.Code)
}

// withCause adds the ICMP message that is behind an error of a socket, if there is
// one in the socket's error queue (ip(7), IP_RECVERR).
func withCause(fd int, err error) error {
	oob := make([]byte, 512)
	_, n, _, _, failed := unix.Recvmsg(fd, nil, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	if failed != nil {
		return err // the queue is empty
	}
	messages, failed := unix.ParseSocketControlMessage(oob[:n])
	if failed != nil {
		return err
	}
	for _, m := range messages {
		isError := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if !isError || len(m.Data) < 8 {
			continue
		}
		// struct sock_extended_err: errno, origin, type, code.
		if origin := m.Data[4]; origin == unix.SO_EE_ORIGIN_ICMP || origin == unix.SO_EE_ORIGIN_ICMP6 {
			return fmt.Errorf("%w: %w", err, &ICMPError{Type: m.Data[5], Code: m.Data[6]})
		}
	}
	return err
}

// withCause is the same for a connection.
func (c *Conn) withCause(err error) error {
	socket, ok := c.Conn.(syscall.Conn)
	if !ok {
		return err
	}
	raw, failed := socket.SyscallConn()
	if failed != nil {
		return err
	}
	_ = raw.Control(func(fd uintptr) { err = withCause(int(fd), err) })
	return err
}

// receiveErrors asks for a queue of ICMP errors. Without it the kernel keeps
// "unreachable" from UDP and SCTP sockets: RFC 1122 calls it a soft error.
func receiveErrors(fd int, v4, on bool) error {
	level, opt := unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	if v4 {
		level, opt = unix.IPPROTO_IP, unix.IP_RECVERR
	}
	value := 0
	if on {
		value = 1
	}
	return unix.SetsockoptInt(fd, level, opt, value)
}
