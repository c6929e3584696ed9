// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// firstAgain is after how long TCP sends a first packet again, a second (RFC 6298), or
// a little less: timers are not exact.
const firstAgain = 900 * time.Millisecond

// Lossless makes Ask fail with ErrSentAgain if TCP had to make good the loss of a first
// packet. That tells a lost packet from a server, or a client, that had to wait for a
// CPU: the kernel answers first packets by itself. What servers had to send again is
// theirs to tell: SentAgain.
func Lossless() Option { return func(o *options) { o.lossless = true } }

// madeGood returns ErrSentAgain if something was sent again over a connection that has
// taken so long, nil if not, and for what is not TCP.
func (c *Conn) madeGood(took time.Duration) error {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok || took < firstAgain {
		return nil
	}
	n, err := sentAgain(tcp)
	if err == nil && n > 0 {
		err = ErrSentAgain
	}
	if err != nil {
		return explain(c.op, err)
	}
	return nil
}

// SentAgain is how many packets the TCP servers of the namespace had to send again, over
// connections that have ended: answers that were lost, or the way to them.
func (n *Namespace) SentAgain() int { return int(n.sentAgain.Load()) }

// sentAgain is how many packets this side had to send again.
func sentAgain(c *net.TCPConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var infoErr error
	err = raw.Control(func(fd uintptr) { info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err = errors.Join(err, infoErr); err != nil {
		return 0, err
	}
	return int(info.Total_retrans), nil
}
