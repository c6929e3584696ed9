// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// burst is how many packets one system call sends, and how many are timed as one. It
// is short beside a time slice, so that few bursts are interrupted.
const burst = 256

// Sender sends frames on an interface, each all the way: without a queue, the
// softirqs that carry the packet run at the end of each transmission, on the CPU of the
// caller. When Send returns the last packet has arrived, and nothing was queued by
// which the time could be that of two CPUs, or by which packets could be lost.
type Sender struct {
	fd   int
	link Link

	frames []byte
	vector []unix.Iovec
	header []message
}

// message is struct mmsghdr.
type message struct {
	unix.Msghdr
	sent uint32
}

// NewSender returns a sender on an interface of a client, to a neighbour.
func NewSender(n *netlab.Namespace, ifname string, neighbour net.HardwareAddr) (*Sender, error) {
	s := &Sender{fd: -1, frames: make([]byte, burst*frameLen), vector: make([]unix.Iovec, burst), header: make([]message, burst)}
	for i := range burst {
		s.vector[i].Base = &s.frames[i*frameLen]
		s.vector[i].SetLen(frameLen)
		s.header[i].Iov = &s.vector[i]
		s.header[i].SetIovlen(1)
	}
	err := n.Do(func() (err error) {
		nic, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		s.link = Link{Source: [6]byte(nic.HardwareAddr), Target: [6]byte(neighbour)}
		s.fd, err = packetSocket(nic.Index)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s of %s: %w", ifname, n.Name(), err)
	}
	return s, nil
}

// packetSocket returns a socket that sends whole frames and receives nothing.
func packetSocket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index}); err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Close closes the socket.
func (s *Sender) Close() error { return unix.Close(s.fd) }

// Send sends at most burst segments, and returns how long it took.
// The caller's goroutine should own its thread.
func (s *Sender) Send(segments []segment) (time.Duration, error) {
	for i, one := range segments {
		putFrame(s.frames[i*frameLen:(i+1)*frameLen], s.link, one)
	}
	begin := time.Now()
	// Not by unix.Syscall, which gives the processor away when it takes long, and may
	// have to wait to get it back.
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.header[0])), uintptr(len(segments)), 0, 0, 0)
	took := time.Since(begin)
	switch {
	case errno != 0:
		return 0, fmt.Errorf("send: %w", errno)
	case int(n) != len(segments):
		return 0, fmt.Errorf("send: %d packets of %d", n, len(segments))
	}
	return took, nil
}
