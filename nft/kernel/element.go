// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// counter is what a frontend's counter has counted.
type counter struct{ packets, bytes uint64 }

// counterOf finds the value that a new element's counter starts from.
type counterOf func(nft.Set, nft.Key) (counter, bool)

// Verdicts on the wire: NFT_JUMP and NFT_GOTO are negative numbers
// (linux/netfilter/nf_tables.h), NF_DROP is 0 (linux/netfilter.h).
const (
	verdictJump = 1<<32 + unix.NFT_JUMP
	verdictGoto = 1<<32 + unix.NFT_GOTO
	verdictDrop = 0
)

// elements appends messages that add or delete elements, set by set in the order
// of the sets, so that data comes before the verdicts that lead to it.
func (b *batch) elements(typ uint16, f nft.Family, elements []nft.Element, counters counterOf) {
	var used [len(nft.Sets)]bool
	for i := range elements {
		used[elements[i].Set] = true
	}
	for _, set := range nft.Sets {
		if used[set] {
			b.elementsOf(set, typ, f, elements, counters)
		}
	}
}

// elementsOf appends those of one set, in as few messages as their size allows.
func (b *batch) elementsOf(set nft.Set, typ uint16, f nft.Family, elements []nft.Element, counters counterOf) {
	flags := uint16(0)
	if typ == unix.NFT_MSG_NEWSETELEM {
		flags = unix.NLM_F_CREATE
	}
	for i := 0; i < len(elements); {
		message := b.message(typ, f, flags)
		b.str(unix.NFTA_SET_ELEM_LIST_SET, set.String())
		list := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		empty := len(b.buf)
		for ; i < len(elements) && len(b.buf)-list < maxAttr; i++ {
			if elements[i].Set == set {
				b.element(typ, f, &elements[i], counters)
			}
		}
		if len(b.buf) == empty {
			b.drop(message)
			return
		}
		b.end(list)
		b.close(message)
	}
}

func (b *batch) element(typ uint16, f nft.Family, e *nft.Element, counters counterOf) {
	outer := b.nest(unix.NFTA_LIST_ELEM)
	k := b.nest(unix.NFTA_SET_ELEM_KEY)
	v := b.begin(unix.NFTA_DATA_VALUE)
	b.buf = nft.AppendKey(b.buf, f, e.Set, e.Key)
	b.end(v)
	b.end(k)
	if e.Set.Ranged() && e.Set.Concatenated() {
		b.keyEnd(nftaSetElemKeyEnd, f, e)
	}
	if typ == unix.NFT_MSG_NEWSETELEM {
		b.value(f, e, counters)
	}
	b.end(outer)
	if e.Set.Ranged() && !e.Set.Concatenated() {
		b.boundary(f, e)
	}
}

func (b *batch) keyEnd(typ uint16, f nft.Family, e *nft.Element) {
	k := b.nest(typ)
	v := b.begin(unix.NFTA_DATA_VALUE)
	b.buf, _ = nft.AppendKeyEnd(b.buf, f, e.Set, e.Key)
	b.end(v)
	b.end(k)
}

// boundary appends the element that ends a range in a set of one field: there the
// kernel keeps the beginnings and ends of ranges as elements of their own.
func (b *batch) boundary(f nft.Family, e *nft.Element) {
	if _, ends := nft.AppendKeyEnd(nil, f, e.Set, e.Key); !ends {
		return
	}
	outer := b.nest(unix.NFTA_LIST_ELEM)
	b.u32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	b.keyEnd(unix.NFTA_SET_ELEM_KEY, f, e)
	b.end(outer)
}

func (b *batch) value(f nft.Family, e *nft.Element, counters counterOf) {
	if e.Set.Map() {
		data := b.nest(unix.NFTA_SET_ELEM_DATA)
		if e.Set.Verdict() {
			verdict := b.nest(unix.NFTA_DATA_VERDICT)
			switch to := e.Value.Verdict; {
			case to.Kind == nft.Drop:
				b.u32(unix.NFTA_VERDICT_CODE, verdictDrop)
			case to.Returns():
				b.u32(unix.NFTA_VERDICT_CODE, verdictJump)
				b.str(unix.NFTA_VERDICT_CHAIN, to.String())
			default:
				b.u32(unix.NFTA_VERDICT_CODE, verdictGoto)
				b.str(unix.NFTA_VERDICT_CHAIN, to.String())
			}
			b.end(verdict)
		} else {
			v := b.begin(unix.NFTA_DATA_VALUE)
			b.buf = nft.AppendData(b.buf, f, e.Set, e.Value)
			b.end(v)
		}
		b.end(data)
	}
	if e.Value.Comment != "" {
		var room [nft.CommentLimit + 3]byte
		b.bytes(unix.NFTA_SET_ELEM_USERDATA, nft.AppendComment(room[:0], e.Value.Comment))
	}
	if counters == nil {
		return
	}
	if c, ok := counters(e.Set, e.Key); ok {
		b.counter(unix.NFTA_SET_ELEM_EXPR, c)
	}
}

// counter appends a counter expression.
func (b *batch) counter(typ uint16, c counter) {
	x := b.nest(typ)
	b.str(unix.NFTA_EXPR_NAME, "counter")
	data := b.nest(unix.NFTA_EXPR_DATA)
	b.u64(unix.NFTA_COUNTER_BYTES, c.bytes)
	b.u64(unix.NFTA_COUNTER_PACKETS, c.packets)
	b.end(data)
	b.end(x)
}

// decodeElement reads an element of a dump, the reverse of element and value.
func decodeElement(f nft.Family, set nft.Set, attr []byte) (nft.Element, counter, error) {
	e := nft.Element{Set: set}
	var c counter
	var err error
	var comment string
	for typ, v := range wire.Attrs(attr) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key, err = nft.DecodeKey(wire.First(v, unix.NFTA_DATA_VALUE), f, set)
		case nftaSetElemKeyEnd:
			e.Key, err = nft.DecodeKeyEnd(e.Key, wire.First(v, unix.NFTA_DATA_VALUE), f, set)
		case unix.NFTA_SET_ELEM_DATA:
			if set.Verdict() {
				e.Value.Verdict = decodeVerdict(v)
			} else {
				e.Value, err = nft.DecodeData(wire.First(v, unix.NFTA_DATA_VALUE), f, set)
			}
		case unix.NFTA_SET_ELEM_USERDATA:
			comment = nft.DecodeComment(v)
		case unix.NFTA_SET_ELEM_EXPR:
			data := wire.First(v, unix.NFTA_EXPR_DATA)
			if b := wire.First(data, unix.NFTA_COUNTER_BYTES); len(b) == 8 {
				c.bytes = binary.BigEndian.Uint64(b)
			}
			if b := wire.First(data, unix.NFTA_COUNTER_PACKETS); len(b) == 8 {
				c.packets = binary.BigEndian.Uint64(b)
			}
		}
		if err != nil {
			return e, c, err
		}
	}
	e.Value.Comment = comment
	return e, c, nil
}

// decodeVerdict reads a verdict; one that we never write reads as no chain at
// all, so that it differs from every wanted one and is replaced.
func decodeVerdict(data []byte) nft.Chain {
	verdict := wire.First(data, unix.NFTA_DATA_VERDICT)
	code := wire.First(verdict, unix.NFTA_VERDICT_CODE)
	switch {
	case len(code) == 4 && wire.U32(code) == verdictDrop:
		return nft.Chain{Kind: nft.Drop}
	case wire.U32(code) != verdictGoto && wire.U32(code) != verdictJump:
		return nft.Chain{}
	}
	chain, _ := nft.ParseChain(wire.String(wire.First(verdict, unix.NFTA_VERDICT_CHAIN)))
	if chain.Returns() != (wire.U32(code) == verdictJump) {
		return nft.Chain{}
	}
	return chain
}
