// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Tuple is one direction of a connection.
type Tuple struct {
	Src, Dst netip.AddrPort
	// Zone is set if the entry is in a zone in this direction alone.
	Zone uint16
}

// Entry is a connection that the kernel tracks.
type Entry struct {
	Family nft.Family
	Proto  nft.Proto
	// Original is as the client sent it. Reply is as the answer comes: its source
	// is who really answers, its destination the client or whom it was masqueraded
	// as.
	Original, Reply Tuple
	Status          Status
	// State is that of a TCP connection, 0 if the kernel does not tell.
	State State
	// Zone is set if the entry is in a zone in both directions.
	Zone uint16
	// ID tells the entry from others that the kernel had or will have for the
	// original tuple.
	ID uint32
}

// Status is what the kernel notes of an entry (linux/netfilter/nf_conntrack_common.h,
// enum ip_conntrack_status).
type Status uint32

// Translated is set when the connection's destination was changed.
const Translated Status = 1 << 5

// State is the state of a TCP connection (linux/netfilter/nf_conntrack_tcp.h, enum
// tcp_conntrack).
type State uint8

// States from which on both sides have ended the connection.
const (
	LastACK  State = 6
	TimeWait State = 7
	Close    State = 8
)

// Open reports whether the connection may still carry data: a TCP connection until
// both sides have ended it, others as long as the kernel tracks them.
func (e *Entry) Open() bool { return e.State < LastACK }

// message is a netlink message.
type message struct {
	header unix.NlMsghdr
	body   []byte
}

// messages walks the messages of a datagram.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for {
			h, body, rest, ok := wire.Next(b)
			if !ok || !yield(message{h, body}) {
				return
			}
			b = rest
		}
	}
}

// errno reads what NLMSG_ERROR and NLMSG_DONE begin with.
func (m message) errno() unix.Errno {
	if len(m.body) < 4 {
		return 0 // NLMSG_DONE may be empty
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
}

// parse reads an entry from a message about one.
func (e *Entry) parse(body []byte) error {
	if len(body) < wire.FamilyLen {
		return fmt.Errorf("conntrack entry of %d bytes", len(body))
	}
	*e = Entry{Family: nft.Family(body[0])}
	for typ, v := range wire.Attrs(body[wire.FamilyLen:]) {
		switch {
		case typ == attrOriginal:
			e.Proto = e.Original.parse(v)
		case typ == attrReply:
			e.Reply.parse(v)
		case typ == attrStatus && len(v) == 4:
			e.Status = Status(binary.BigEndian.Uint32(v))
		case typ == attrProtoInfo:
			e.State = tcpState(v)
		case typ == attrZone && len(v) == 2:
			e.Zone = binary.BigEndian.Uint16(v)
		case typ == attrID && len(v) == 4:
			e.ID = binary.BigEndian.Uint32(v)
		}
	}
	if !e.Original.Dst.IsValid() || !e.Reply.Src.IsValid() {
		return fmt.Errorf("conntrack entry %#x has no addresses", e.ID)
	}
	return nil
}

// tcpState reads what a protocol tells, if it is TCP.
func tcpState(b []byte) State {
	if v := wire.First(wire.First(b, protoInfoTCP), tcpInfoState); len(v) == 1 {
		return State(v[0])
	}
	return 0
}

func (t *Tuple) parse(b []byte) (p nft.Proto) {
	var src, dst netip.Addr
	var srcPort, dstPort uint16
	for typ, v := range wire.Attrs(b) {
		switch {
		case typ == tupleIP:
			src, dst = addrs(v)
		case typ == tupleProto:
			p, srcPort, dstPort = ports(v)
		case typ == tupleZone && len(v) == 2:
			t.Zone = binary.BigEndian.Uint16(v)
		}
	}
	t.Src, t.Dst = netip.AddrPortFrom(src, srcPort), netip.AddrPortFrom(dst, dstPort)
	return p
}

func addrs(b []byte) (src, dst netip.Addr) {
	for typ, v := range wire.Attrs(b) {
		a, ok := netip.AddrFromSlice(v)
		switch {
		case !ok:
		case typ == ipv4Src || typ == ipv6Src:
			src = a
		case typ == ipv4Dst || typ == ipv6Dst:
			dst = a
		}
	}
	return src, dst
}

// ports reads the upper half of a tuple; protocols without ports have none.
func ports(b []byte) (p nft.Proto, src, dst uint16) {
	for typ, v := range wire.Attrs(b) {
		switch {
		case typ == protoNum && len(v) == 1:
			p = nft.Proto(v[0])
		case typ == protoSrcPort && len(v) == 2:
			src = binary.BigEndian.Uint16(v)
		case typ == protoDstPort && len(v) == 2:
			dst = binary.BigEndian.Uint16(v)
		}
	}
	return p, src, dst
}
