// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Places of fields in the packet, for payload expressions.
const (
	protocolIPv4 = 9 // of the network header
	dstIPv4      = 16
	dstIPv6      = 24
	dport        = 2 // of the transport header
)

// Attributes of expressions that x/sys/unix does not name.
const (
	commentOfRule = 0 // in user data: NFTNL_UDATA_RULE_COMMENT
	verdictJump   = uint32(0xfffffffd)
	verdictGoto   = uint32(0xfffffffc)
)

// What a register holds.
type register int

const (
	regOther register = iota
	regDst
	regProto
	regPort
)

// parseRule reads a rule that nf_tables tells of. What a frontend needs is known in both
// forms that iptables-nft writes: matches of xtables, and expressions of nf_tables.
func parseRule(f nft.Family, body []byte) (table string, r rule) {
	var registers [32]register
	for typ, v := range wire.Attrs(body) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			table = wire.String(v)
		case unix.NFTA_RULE_CHAIN:
			r.chain = wire.String(v)
		case unix.NFTA_RULE_HANDLE:
			r.handle = wire.U64(v)
		case unix.NFTA_RULE_USERDATA:
			if c := userComment(v, commentOfRule); c != "" {
				r.comment = c
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, e := range wire.Attrs(v) {
				r.expression(f, wire.String(wire.First(e, unix.NFTA_EXPR_NAME)), wire.First(e, unix.NFTA_EXPR_DATA), &registers)
			}
		}
	}
	return table, r
}

// userComment reads a comment from user data, which are type, length and value, a byte
// each but the value.
func userComment(b []byte, typ byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == typ {
			return wire.String(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

func (r *rule) expression(f nft.Family, name string, data []byte, registers *[32]register) {
	attr := func(typ uint16) []byte { return wire.First(data, typ) }
	at := func(typ uint16) *register { return &registers[wire.U32(attr(typ))%32] }
	switch name {
	case "immediate":
		verdict := wire.First(attr(unix.NFTA_IMMEDIATE_DATA), unix.NFTA_DATA_VERDICT)
		if code := wire.U32(wire.First(verdict, unix.NFTA_VERDICT_CODE)); code == verdictJump || code == verdictGoto {
			r.target = wire.String(wire.First(verdict, unix.NFTA_VERDICT_CHAIN))
		}
	case "match":
		r.match(wire.String(attr(unix.NFTA_MATCH_NAME)), attr(unix.NFTA_MATCH_INFO))
	case "meta":
		*at(unix.NFTA_META_DREG) = regOther
		if wire.U32(attr(unix.NFTA_META_KEY)) == unix.NFT_META_L4PROTO {
			*at(unix.NFTA_META_DREG) = regProto
		}
	case "payload":
		*at(unix.NFTA_PAYLOAD_DREG) = payload(f, wire.U32(attr(unix.NFTA_PAYLOAD_BASE)), wire.U32(attr(unix.NFTA_PAYLOAD_OFFSET)))
	case "bitwise":
		*at(unix.NFTA_BITWISE_DREG) = regOther
	case "cmp":
		value := wire.First(attr(unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE)
		r.compare(*at(unix.NFTA_CMP_SREG), wire.U32(attr(unix.NFTA_CMP_OP)) == unix.NFT_CMP_EQ, value)
	}
}

// payload says which field is loaded, if it is one that matters.
func payload(f nft.Family, base, offset uint32) register {
	switch {
	case base == unix.NFT_PAYLOAD_TRANSPORT_HEADER && offset == dport:
		return regPort
	case base != unix.NFT_PAYLOAD_NETWORK_HEADER:
		return regOther
	case f == nft.IPv4 && offset == dstIPv4, f == nft.IPv6 && offset == dstIPv6:
		return regDst
	case f == nft.IPv4 && offset == protocolIPv4:
		return regProto
	}
	return regOther
}

// compare notes what a field must be. A part of an address is a prefix, and anything
// that an address must not be is more than one.
func (r *rule) compare(field register, equal bool, value []byte) {
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	switch {
	case field == regDst && !equal:
		r.dst = everything
	case field == regDst:
		if a, ok := netip.AddrFromSlice(value); ok {
			r.dst = netip.PrefixFrom(a, a.BitLen())
		} else {
			r.dst = everything
		}
	case field == regProto && equal && len(value) == 1:
		r.proto = nft.Proto(value[0])
	case field == regPort && equal && len(value) == 2:
		r.port = binary.BigEndian.Uint16(value)
	}
}

// match notes what a match of xtables wants (linux/netfilter/xt_tcpudp.h, xt_sctp.h,
// xt_comment.h, xt_nfacct.h).
func (r *rule) match(name string, info []byte) {
	ports := map[string]int{"tcp": 4, "udp": 4, "sctp": 0} // where the range of destination ports is
	at, ok := ports[name]
	switch {
	case name == "comment":
		r.comment = wire.String(info)
	case name == "nfacct":
		r.account = wire.String(info)
	case ok && len(info) >= at+4:
		first, last := binary.NativeEndian.Uint16(info[at:]), binary.NativeEndian.Uint16(info[at+2:])
		if first == last {
			r.port = first
		}
	}
}
