// SPDX-License-Identifier: Apache-2.0

package nft

import "encoding/binary"

// nft keeps in a set's user data what its typeof clause said; the kernel only
// stores it. Without it nft cannot print a numgen field, nor reload the set. The
// format is libnftnl's: type, length, value, one byte each for the first two,
// numbers in host byte order (libnftnl include/libnftnl/udata.h; nftables
// include/expression.h, proto.h and src/*.c, functions *_build_udata).
const (
	udataKeyByteOrder  = 0
	udataDataByteOrder = 1
	udataKeyTypeof     = 3
	udataDataTypeof    = 4
	udataDataInterval  = 6

	udataExprKind = 0
	udataExprData = 1

	udataBigEndian = 2

	exprVerdict = 1
	exprPayload = 7
	exprMeta    = 9
	exprConcat  = 13
	exprNumgen  = 23

	protoTH  = 11
	protoIP  = 12
	protoIP6 = 13

	fieldTHDport  = 2
	fieldIPSaddr  = 11
	fieldIPDaddr  = 12
	fieldIP6Saddr = 8
	fieldIP6Daddr = 9

	metaL4Proto  = 16
	numgenRandom = 1
)

func appendTLV(b []byte, typ uint8, value []byte) []byte {
	return append(append(b, typ, uint8(len(value))), value...)
}

func appendTLV32(b []byte, typ uint8, v uint32) []byte {
	return binary.NativeEndian.AppendUint32(append(b, typ, 4), v)
}

// typeofUserData returns the user data of a set, byte for byte what nft writes
// for the same typeof clause.
func typeofUserData(f Family, l layout) []byte {
	order := uint32(0)
	if len(l.key) == 1 {
		order = udataBigEndian
	}
	b := appendTLV32(nil, udataKeyByteOrder, order)
	isMap := l.verdict || l.data != nil
	if isMap {
		b = appendTLV32(b, udataDataByteOrder, 0)
	}
	b = appendTLV(b, udataKeyTypeof, typeofFields(f, l.key))
	if !isMap {
		return b
	}
	if l.verdict {
		b = appendTLV(b, udataDataTypeof, typeofExpr(exprVerdict, nil))
	} else {
		b = appendTLV(b, udataDataTypeof, typeofFields(f, l.data))
	}
	return appendTLV32(b, udataDataInterval, 0)
}

func typeofExpr(kind uint32, data []byte) []byte {
	return appendTLV(appendTLV32(nil, udataExprKind, kind), udataExprData, data)
}

func typeofFields(f Family, fields []field) []byte {
	if len(fields) == 1 {
		return typeofField(f, fields[0])
	}
	var parts []byte
	for i, fl := range fields {
		parts = appendTLV(parts, uint8(i), typeofField(f, fl))
	}
	return typeofExpr(exprConcat, parts)
}

func typeofField(f Family, fl field) []byte {
	pair := func(kind, a, b uint32) []byte {
		return typeofExpr(kind, appendTLV32(appendTLV32(nil, 0, a), 1, b))
	}
	switch fl {
	case fieldProto:
		return typeofExpr(exprMeta, appendTLV32(nil, 0, metaL4Proto))
	case fieldPort:
		return pair(exprPayload, protoTH, fieldTHDport)
	case fieldSlot:
		b := appendTLV32(nil, 0, numgenRandom)
		b = appendTLV32(b, 1, slotModulus)
		return typeofExpr(exprNumgen, appendTLV32(b, 2, 0))
	}
	switch {
	case f == IPv4 && (fl == fieldSaddr || fl == fieldSaddrRange):
		return pair(exprPayload, protoIP, fieldIPSaddr)
	case f == IPv4:
		return pair(exprPayload, protoIP, fieldIPDaddr)
	case fl == fieldSaddr || fl == fieldSaddrRange:
		return pair(exprPayload, protoIP6, fieldIP6Saddr)
	}
	return pair(exprPayload, protoIP6, fieldIP6Daddr)
}
