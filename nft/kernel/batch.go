// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// batch is one transaction under construction: netlink messages one behind the
// other between a begin and an end, in one buffer that is used again and again.
// The kernel takes it in one write and commits all of it or nothing
// (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch).
type batch struct {
	buf   []byte
	table string
	// starts holds the offset of each message; the sequence number of a message
	// is its index, so that an answer leads back to it.
	starts []int
}

const (
	// maxAttr is the room for elements in one message: an attribute's length is
	// 16 bits, and the kernel wants the last element whole.
	maxAttr = 1<<16 - 512
)

// clear makes room for requests outside of a transaction.
func (b *batch) clear(table string) {
	b.buf, b.starts, b.table = b.buf[:0], b.starts[:0], table
}

// reset starts a transaction.
func (b *batch) reset(table string) {
	b.clear(table)
	b.control(unix.NFNL_MSG_BATCH_BEGIN)
}

// control opens and closes the transaction.
func (b *batch) control(typ uint16) {
	start := b.open(typ, 0, unix.NLM_F_REQUEST)
	b.buf = append(b.buf, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	b.close(start)
}

// commit ends the transaction. The last real message asks for an answer, as proof
// that the kernel has seen everything: its answers to begin and end depend on its
// version (since 6.10 it acknowledges them when asked).
func (b *batch) commit() {
	last := b.starts[len(b.starts)-1]
	flags := binary.NativeEndian.Uint16(b.buf[last+6:])
	binary.NativeEndian.PutUint16(b.buf[last+6:], flags|unix.NLM_F_ACK)
	b.control(unix.NFNL_MSG_BATCH_END)
}

// size is the number of messages between begin and end.
func (b *batch) size() int { return len(b.starts) - 1 }

func (b *batch) open(typ uint16, family nft.Family, flags uint16) int {
	start := len(b.buf)
	b.starts = append(b.starts, start)
	b.buf = append(b.buf, 0, 0, 0, 0)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
	b.buf = binary.NativeEndian.AppendUint16(b.buf, flags)
	b.buf = binary.NativeEndian.AppendUint32(b.buf, uint32(len(b.starts)))
	b.buf = append(b.buf, 0, 0, 0, 0)
	return start
}

// message opens a message about something in the table.
func (b *batch) message(typ uint16, family nft.Family, flags uint16) int {
	start := b.open(unix.NFNL_SUBSYS_NFTABLES<<8|typ, family, unix.NLM_F_REQUEST|flags)
	b.buf = append(b.buf, uint8(family), unix.NFNETLINK_V0, 0, 0)
	// NFTA_TABLE_NAME, NFTA_SET_TABLE, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and
	// NFTA_SET_ELEM_LIST_TABLE are all attribute 1.
	b.str(unix.NFTA_TABLE_NAME, b.table)
	return start
}

func (b *batch) close(start int) {
	binary.NativeEndian.PutUint32(b.buf[start:], uint32(len(b.buf)-start))
}

// drop takes the message back that was opened last.
func (b *batch) drop(start int) {
	b.buf = b.buf[:start]
	b.starts = b.starts[:len(b.starts)-1]
}

// head starts an attribute of n bytes.
func (b *batch) head(typ uint16, n int) {
	b.buf = binary.NativeEndian.AppendUint16(b.buf, uint16(wire.AttrLen+n))
	b.buf = binary.NativeEndian.AppendUint16(b.buf, typ)
}

func (b *batch) pad() {
	for len(b.buf)%unix.NLA_ALIGNTO != 0 {
		b.buf = append(b.buf, 0)
	}
}

func (b *batch) str(typ uint16, s string) {
	b.head(typ, len(s)+1)
	b.buf = append(append(b.buf, s...), 0)
	b.pad()
}

func (b *batch) bytes(typ uint16, v []byte) {
	b.head(typ, len(v))
	b.buf = append(b.buf, v...)
	b.pad()
}

func (b *batch) u32(typ uint16, v uint32) {
	b.head(typ, 4)
	b.buf = binary.BigEndian.AppendUint32(b.buf, v)
}

func (b *batch) u64(typ uint16, v uint64) {
	b.head(typ, 8)
	b.buf = binary.BigEndian.AppendUint64(b.buf, v)
}

// begin opens an attribute of a length not known yet; end closes it.
func (b *batch) begin(typ uint16) int {
	start := len(b.buf)
	b.head(typ, 0)
	return start
}

// nest opens an attribute that holds attributes; end closes it.
func (b *batch) nest(typ uint16) int { return b.begin(typ | unix.NLA_F_NESTED) }

func (b *batch) end(start int) {
	b.pad()
	binary.NativeEndian.PutUint16(b.buf[start:], uint16(len(b.buf)-start))
}
