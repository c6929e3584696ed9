// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Messages of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
const (
	messageNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	messageGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	messageDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
)

// Attributes of an entry.
const (
	attrOriginal  = 1
	attrReply     = 2
	attrStatus    = 3
	attrProtoInfo = 4
	attrID        = 12
	attrZone      = 18
	attrFilter    = 25
)

// Attributes of what TCP tells of an entry.
const (
	protoInfoTCP = 1
	tcpInfoState = 1
)

// Attributes of a tuple, of its addresses, of its ports, and of a filter.
const (
	tupleIP    = 1
	tupleProto = 2
	tupleZone  = 3

	ipv4Src = 1
	ipv4Dst = 2
	ipv6Src = 3
	ipv6Dst = 4

	protoNum     = 1
	protoSrcPort = 2
	protoDstPort = 3

	filterOriginal = 1
	// What to compare (nf_conntrack_netlink.c, CTA_FILTER_F_*).
	compareProto   = 1 << 3
	compareDstPort = 1 << 5
)

// buffer holds requests, one behind the other.
type buffer []byte

// open starts a request; close ends it.
func (b *buffer) open(typ, flags uint16, seq uint32, f nft.Family) (start int) {
	start = len(*b)
	*b = append(*b, 0, 0, 0, 0)
	*b = binary.NativeEndian.AppendUint16(*b, typ)
	*b = binary.NativeEndian.AppendUint16(*b, unix.NLM_F_REQUEST|flags)
	*b = binary.NativeEndian.AppendUint32(*b, seq)
	*b = append(*b, 0, 0, 0, 0)
	*b = append(*b, uint8(f), unix.NFNETLINK_V0, 0, 0)
	return start
}

func (b *buffer) close(start int) {
	binary.NativeEndian.PutUint32((*b)[start:], uint32(len(*b)-start))
}

func (b *buffer) attr(typ uint16, v ...byte) {
	*b = wire.AppendAttr(*b, typ, v...)
}

func (b *buffer) u16(typ, v uint16) { b.attr(typ, byte(v>>8), byte(v)) }

func (b *buffer) u32(typ uint16, v uint32) {
	b.attr(typ, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// nest opens an attribute that holds attributes; end closes it.
func (b *buffer) nest(typ uint16) (start int) {
	start = len(*b)
	b.attr(typ | unix.NLA_F_NESTED)
	return start
}

func (b *buffer) end(start int) {
	binary.NativeEndian.PutUint16((*b)[start:], uint16(len(*b)-start))
}

// list asks for all entries of a family, filtered if the kernel can (since 5.8; the
// attribute is passed over by older ones).
func (b *buffer) list(seq uint32, f Filter, filtered bool) {
	start := b.open(messageGet, unix.NLM_F_DUMP, seq, f.Family)
	if filtered && f.Translated {
		b.u32(attrStatus, uint32(Translated)) // since 5.15
	}
	if filtered && f.Proto != 0 {
		compare := uint32(compareProto)
		tuple := b.nest(attrOriginal)
		proto := b.nest(tupleProto)
		b.attr(protoNum, uint8(f.Proto))
		if f.Port != 0 {
			compare |= compareDstPort
			b.u16(protoDstPort, f.Port)
		}
		b.end(proto)
		b.end(tuple)
		filter := b.nest(attrFilter)
		b.attr(filterOriginal, binary.NativeEndian.AppendUint32(nil, compare)...)
		b.end(filter)
	}
	b.close(start)
}

// delete asks to delete an entry. It is named by its reply tuple, which says where
// it leads, and by its ID, which the kernel derives from the original tuple and
// the entry's place in memory (nf_conntrack_core.c, nf_ct_get_id): an entry that
// has come in its place since and leads elsewhere is another one.
func (b *buffer) delete(seq uint32, flags uint16, e *Entry) {
	start := b.open(messageDelete, flags, seq, e.Family)
	b.tuple(attrReply, e.Proto, e.Reply)
	if e.Zone != 0 {
		b.u16(attrZone, e.Zone)
	}
	b.u32(attrID, e.ID)
	b.close(start)
}

func (b *buffer) tuple(typ uint16, p nft.Proto, t Tuple) {
	start := b.nest(typ)
	ip := b.nest(tupleIP)
	src, dst := uint16(ipv4Src), uint16(ipv4Dst)
	if !t.Src.Addr().Is4() {
		src, dst = ipv6Src, ipv6Dst
	}
	b.addr(src, t.Src.Addr())
	b.addr(dst, t.Dst.Addr())
	b.end(ip)
	proto := b.nest(tupleProto)
	b.attr(protoNum, uint8(p))
	b.u16(protoSrcPort, t.Src.Port())
	b.u16(protoDstPort, t.Dst.Port())
	b.end(proto)
	if t.Zone != 0 {
		b.u16(tupleZone, t.Zone)
	}
	b.end(start)
}

func (b *buffer) addr(typ uint16, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		b.attr(typ, v[:]...)
		return
	}
	v := a.As16()
	b.attr(typ, v[:]...)
}
