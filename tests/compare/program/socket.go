// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// socket is a raw one in a namespace, which sees every TCP packet that comes to one of
// its addresses, beside whoever it is for.
type socket struct {
	c    *ipv4.PacketConn
	out  []ipv4.Message
	own  netip.Addr
	next uint16 // source port
}

const (
	batch     = 128 // packets for one system call
	firstPort = 2048
	buffer    = 32 << 20
)

// openSocket opens one. What is sent comes from the address.
func openSocket(n *netlab.Namespace, own netip.Addr) (*socket, error) {
	s := &socket{own: own, next: firstPort + uint16(rand.IntN(1<<15))}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(fd uintptr) {
			err = errors.Join(
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer),
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, buffer))
		})
		return errors.Join(err, failed)
	}}
	err := n.Do(func() error {
		c, err := config.ListenPacket(context.Background(), "ip4:tcp", own.String())
		if err == nil {
			s.c = ipv4.NewPacketConn(c)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for range batch {
		s.out = append(s.out, ipv4.Message{Buffers: [][]byte{make([]byte, headerSize)}, Addr: &net.IPAddr{IP: make(net.IP, 4)}})
	}
	return s, nil
}

// ask sends a SYN to each of the addresses, each from a port of its own. Who sends too
// fast for the kernel waits.
func (s *socket) ask(to ...netip.AddrPort) error {
	for len(to) > 0 {
		n := min(len(to), batch)
		for i, dst := range to[:n] {
			putSYN(s.out[i].Buffers[0], netip.AddrPortFrom(s.own, s.port()), dst)
			b := dst.Addr().As4()
			copy(s.out[i].Addr.(*net.IPAddr).IP, b[:])
		}
		for sent := 0; sent < n; {
			done, err := s.c.WriteBatch(s.out[sent:n], 0)
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOBUFS) {
				done, err = 1, nil // this one was dropped, as on any network
			}
			if err != nil {
				return err
			}
			sent += max(done, 1)
		}
		to = to[n:]
	}
	return nil
}

// port returns the next source port: a packet from one that was used lately would meet
// what the kernel tracks of that connection.
func (s *socket) port() uint16 {
	p := s.next
	if s.next++; s.next == 0 {
		s.next = firstPort
	}
	return p
}

// listen calls f for each packet that comes, with the time at which the kernel got it,
// until the socket is closed.
func (s *socket) listen(f func(p seen, at time.Time)) {
	in := make([]ipv4.Message, batch)
	for i := range in {
		in[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 128)}, OOB: make([]byte, 64)}
	}
	for {
		n, err := s.c.ReadBatch(in, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // ICMP errors are none of ours
		}
		for _, m := range in[:n] {
			if p, ok := parse(m.Buffers[0][:m.N]); ok {
				f(p, arrival(m.OOB[:m.NN]))
			}
		}
	}
}

// arrival reads the kernel's time of a packet.
func arrival(oob []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err == nil {
		for _, m := range messages {
			if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= 16 {
				seconds, rest := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
				return time.Unix(int64(seconds), int64(rest))
			}
		}
	}
	return time.Now()
}

func (s *socket) close() error { return s.c.Close() }
