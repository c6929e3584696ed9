// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

const (
	// datagram has room for one of the kernel's, which are at most 32 kB.
	datagram = 64 << 10
	// receiveBuffer holds what the kernel says while we work.
	receiveBuffer = 8 << 20
	// attempts is how often something is done again that others' changes interrupt.
	attempts = 20
)

// errInterrupted says that a listing is of two states of the kernel.
var errInterrupted = errors.New("others change it all the time")

// socket is one to nfnetlink, read one datagram at a time: in iptables mode there may be
// hundreds of thousands of rules, of which little is kept.
type socket struct {
	conn   *netlink.Conn
	raw    syscall.RawConn
	seq    uint32
	answer []byte
}

func openSocket() (*socket, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	// Answers without a copy of the request; they are right with it, too.
	_ = conn.SetOption(netlink.CapAcknowledge, true)
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open nfnetlink: %w", err)
	}
	s := &socket{conn: conn, raw: raw, answer: make([]byte, datagram)}
	_ = s.setBuffer(unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	return s, nil
}

func (s *socket) close() { _ = s.conn.Close() }

func (s *socket) setBuffer(force, plain, size int) error {
	var err error
	ctlErr := s.raw.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, force, size); err != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, plain, size)
		}
	})
	return errors.Join(ctlErr, err)
}

// send writes messages. The kernel has worked them off when it returns, a listing
// excepted.
func (s *socket) send(b []byte) error {
	if len(b) > 64<<10 {
		_ = s.setBuffer(unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, len(b)+len(b)/4)
	}
	var err error
	werr := s.raw.Write(func(fd uintptr) bool {
		for {
			err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if errors.Is(err, unix.EMSGSIZE) {
		err = fmt.Errorf("transaction of %d bytes is larger than the socket allows: raise net.core.wmem_max: %w", len(b), err)
	}
	return errors.Join(werr, permission(err))
}

// receive waits for a datagram, which is good until the next call.
func (s *socket) receive() ([]byte, error) {
	var n int
	var err error
	rerr := s.raw.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Read(int(fd), s.answer); err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	return s.answer[:max(n, 0)], errors.Join(rerr, err)
}

// list asks for a listing, and hands each entry to f, without the family header. While
// it is of two states of the kernel it is asked for again: f must bear an entry twice,
// and begin is called before each time.
func (s *socket) list(typ uint16, family uint8, attrs []byte, begin func(), f func(body []byte)) error {
	for range attempts {
		begin()
		s.seq++
		b := request(nil, typ, unix.NLM_F_DUMP, s.seq, family, attrs)
		if err := s.send(b); err != nil {
			return err
		}
		interrupted, err := s.entries(f)
		if err != nil || !interrupted {
			return err
		}
	}
	return errInterrupted
}

// entries reads answers until the last.
func (s *socket) entries(f func(body []byte)) (interrupted bool, err error) {
	for {
		b, err := s.receive()
		if err != nil {
			return false, err
		}
		for len(b) >= wire.HeaderLen {
			h, body, rest, ok := wire.Next(b)
			if !ok {
				return false, unix.EBADMSG
			}
			b = rest
			if h.Seq != s.seq {
				continue
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case h.Type == unix.NLMSG_ERROR || h.Type == unix.NLMSG_DONE:
				errno := errnoOf(body)
				if errno == unix.EINTR { // since 6.13 a listing ends with it instead
					return true, nil
				}
				if errno != 0 {
					return false, permission(errno)
				}
				return interrupted, nil
			case len(body) >= wire.FamilyLen:
				f(body[wire.FamilyLen:])
			}
		}
	}
}

// generation is the number of nf_tables' last transaction in this namespace.
func (s *socket) generation() (number uint32, err error) {
	s.seq++
	if err := s.send(request(nil, nftables|unix.NFT_MSG_GETGEN, unix.NLM_F_ACK, s.seq, unix.AF_UNSPEC, nil)); err != nil {
		return 0, err
	}
	_, err = s.entries(func(body []byte) { number = wire.U32(wire.First(body, unix.NFTA_GEN_ID)) })
	return number, err
}

// batchGeneration is NFNL_BATCH_GENID of linux/netfilter/nfnetlink.h.
const batchGeneration = 1

// commit sends a batch of nf_tables, in which everything happens or nothing: nothing, and
// ERESTART, if there was a transaction of anybody's after that of the generation.
func (s *socket) commit(generation uint32, messages func(b *batch)) error {
	b := &batch{seq: s.seq + 1}
	b.add(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC,
		wire.AppendAttr(nil, batchGeneration, binary.BigEndian.AppendUint32(nil, generation)...))
	messages(b)
	b.add(unix.NFNL_MSG_BATCH_END, unix.NLM_F_ACK, unix.AF_UNSPEC, nil)
	s.seq = b.seq
	if err := s.send(b.buf); err != nil {
		return err
	}
	for {
		d, err := s.receive()
		if err != nil {
			return err
		}
		for len(d) >= wire.HeaderLen {
			h, body, rest, ok := wire.Next(d)
			if !ok {
				return unix.EBADMSG
			}
			d = rest
			if h.Type != unix.NLMSG_ERROR {
				continue
			}
			if errno := errnoOf(body); errno != 0 {
				s.drain()
				return permission(errno)
			}
			if h.Seq == b.seq-1 { // of the end
				return nil
			}
		}
	}
}

// drain forgets answers that are waiting.
func (s *socket) drain() {
	_ = s.raw.Read(func(fd uintptr) bool {
		for {
			if _, err := unix.Read(int(fd), s.answer); err != nil && err != unix.EINTR {
				return true
			}
		}
	})
}

// batch is a transaction in the making.
type batch struct {
	buf []byte
	seq uint32
}

func (b *batch) add(typ, flags uint16, family uint8, attrs []byte) {
	resource := uint16(0)
	if typ == unix.NFNL_MSG_BATCH_BEGIN || typ == unix.NFNL_MSG_BATCH_END {
		resource = unix.NFNL_SUBSYS_NFTABLES
	}
	at := len(b.buf)
	b.buf = request(b.buf, typ, flags, b.seq, family, attrs)
	binary.BigEndian.PutUint16(b.buf[at+wire.HeaderLen+2:], resource)
	b.seq++
}

// request appends a message of nfnetlink.
func request(b []byte, typ, flags uint16, seq uint32, family uint8, attrs []byte) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(wire.HeaderLen+wire.FamilyLen+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = append(b, 0, 0, 0, 0, family, unix.NFNETLINK_V0, 0, 0)
	return append(b, attrs...)
}

// errnoOf reads what an error message, or the end of a listing, begins with.
func errnoOf(body []byte) unix.Errno {
	if len(body) < 4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
}

// permission names the mend for want of privileges.
func permission(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("needs CAP_NET_ADMIN, run as root or give the container that capability: %w", fs.ErrPermission)
	}
	return err
}

// text is an attribute that is a string.
func text(typ uint16, s string) []byte { return wire.AppendAttr(nil, typ, append([]byte(s), 0)...) }
