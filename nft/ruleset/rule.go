// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// Verdicts (linux/netfilter.h).
const (
	nfDrop   = 0
	nfAccept = 1
	nfQueue  = 3 // the queue's number is above it
)

// nftaBitwiseOp is what golang.org/x/sys/unix lacks (linux/netfilter/nf_tables.h):
// 0 is mask and xor.
const nftaBitwiseOp = 6

// words is how many registers of 4 bytes there are, and one more for others.
const words = 16 + 1

// decoder reads the expressions of a rule: loads fill registers, and what compares
// or acts uses them.
type decoder struct {
	family    Family
	registers [words]operand
	rule      Rule
}

func decodeRule(f Family, body []byte) Rule {
	d := decoder{family: f}
	d.rule.Handle = wire.U64(wire.First(body, unix.NFTA_RULE_HANDLE))
	d.rule.Comment = nft.DecodeComment(wire.First(body, unix.NFTA_RULE_USERDATA))
	for _, e := range wire.Attrs(wire.First(body, unix.NFTA_RULE_EXPRESSIONS)) {
		d.expression(wire.String(wire.First(e, unix.NFTA_EXPR_NAME)), wire.First(e, unix.NFTA_EXPR_DATA))
	}
	return d.rule
}

// register is the place of a register: the four of 16 bytes are each four of those
// of 4 bytes (nf_tables.h, enum nft_registers).
func (d *decoder) register(data []byte, attr uint16) *operand {
	n := wire.U32(wire.First(data, attr))
	switch {
	case n >= unix.NFT_REG_1 && n <= unix.NFT_REG_4:
		n = 4 * (n - unix.NFT_REG_1)
	case n >= unix.NFT_REG32_00 && n <= unix.NFT_REG32_15:
		n -= unix.NFT_REG32_00
	default:
		n = words - 1
	}
	return &d.registers[n]
}

func (d *decoder) expression(name string, data []byte) {
	switch name {
	case "payload":
		if wire.First(data, unix.NFTA_PAYLOAD_SREG) == nil {
			d.load(d.register(data, unix.NFTA_PAYLOAD_DREG), d.payload(data))
		}
	case "meta":
		d.meta(data)
	case "ct":
		d.ct(data)
	case "bitwise":
		d.bitwise(data)
	case "cmp", "range":
		d.compare(name, data)
	case "lookup":
		d.lookup(data)
	case "immediate":
		d.immediate(data)
	case "match":
		d.xtMatch(data)
	case "target":
		d.xtTarget(data)
	case "nat":
		d.act(SNAT)
		if wire.U32(wire.First(data, unix.NFTA_NAT_TYPE)) == unix.NFT_NAT_DNAT {
			d.act(DNAT)
		}
	case "notrack":
		d.rule.NoTrack = true
	case "counter", "log", "comment", "objref", "last", "dup":
	case "limit", "quota", "connlimit", "dynset":
		d.mayMatch() // these may end the rule
	default:
		if action, ok := actions[name]; ok {
			d.act(action)
			return
		}
		// Others fill a register with something unknown.
		d.load(d.register(data, 1), operand{})
	}
}

var actions = map[string]Action{
	"reject": Reject, "queue": Queue, "masq": Masquerade, "redir": Redirect, "tproxy": TProxy, "synproxy": Accept,
}

func (d *decoder) load(to *operand, o operand) { *to = o }

func (d *decoder) act(a Action) { d.rule.Verdict = Verdict{Kind: Act, Action: a} }

func (d *decoder) match(m Match) {
	d.reads(&m.of)
	d.rule.Matches = append(d.rule.Matches, m)
}

// reads notes which bits of the mark are looked at.
func (d *decoder) reads(o *operand) {
	if o.field == mark {
		d.rule.Mark.Reads |= word(o.mask, 0)
	}
}

// mayMatch adds a condition that is not understood.
func (d *decoder) mayMatch() { d.match(Match{}) }

// word is a mask as a number: packet marks are in host order.
func word(b []byte, otherwise uint32) uint32 {
	if len(b) != 4 {
		return otherwise
	}
	return binary.NativeEndian.Uint32(b)
}

// Places of what is known of packets in their headers: first byte, and how many.
type place struct {
	base, off, n uint32
	field        field
}

// Transport headers begin with the ports in each protocol of Services.
var (
	places = []place{
		{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, sourcePort},
		{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, destPort},
	}
	placesOf = map[Family][]place{
		IPv4: append([]place{
			{unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 4, sourceAddr},
			{unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, destAddr},
			{unix.NFT_PAYLOAD_NETWORK_HEADER, 9, 1, protocol},
		}, places...),
		IPv6: append([]place{
			{unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16, sourceAddr},
			{unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16, destAddr},
		}, places...),
		Inet: places,
	}
)

// payload is a part of the packet. In family inet the rule has asked before which
// IP it is.
func (d *decoder) payload(data []byte) operand {
	base, off, n := wire.U32(wire.First(data, unix.NFTA_PAYLOAD_BASE)), wire.U32(wire.First(data, unix.NFTA_PAYLOAD_OFFSET)), wire.U32(wire.First(data, unix.NFTA_PAYLOAD_LEN))
	family := d.family
	if family == Inet {
		family = d.inetFamily()
	}
	for _, p := range placesOf[family] {
		if p.base == base && off >= p.off && off+n <= p.off+p.n {
			return operand{field: p.field, off: int(off - p.off)}
		}
	}
	return operand{}
}

// inetFamily is the family that a rule of family inet has asked for by now.
func (d *decoder) inetFamily() Family {
	for _, m := range d.rule.Matches {
		if m.of.field == nfProto && !m.not && len(m.ranges) == 1 && len(m.ranges[0].from) > 0 {
			return Family(m.ranges[0].from[0])
		}
	}
	return Inet
}

var (
	metaFields = map[uint32]field{
		unix.NFT_META_MARK: mark, unix.NFT_META_L4PROTO: protocol, unix.NFT_META_NFPROTO: nfProto, unix.NFT_META_PROTOCOL: etherType,
		unix.NFT_META_IIFNAME: inName, unix.NFT_META_OIFNAME: outName, unix.NFT_META_IIF: inIndex, unix.NFT_META_OIF: outIndex,
	}
	ctFields = map[uint32]field{unix.NFT_CT_STATE: ctState, unix.NFT_CT_STATUS: ctStatus}
)

func (d *decoder) meta(data []byte) {
	key := wire.U32(wire.First(data, unix.NFTA_META_KEY))
	if wire.First(data, unix.NFTA_META_SREG) != nil {
		if key == unix.NFT_META_MARK {
			d.rule.Mark.Add(becomes(d.register(data, unix.NFTA_META_SREG)))
		}
		return
	}
	d.load(d.register(data, unix.NFTA_META_DREG), operand{field: metaFields[key]})
}

// becomes says which bits change of a mark that becomes the operand: all, but for
// those that are kept of the mark itself.
func becomes(o *operand) Marks {
	if o.field == mark {
		mask, xor := word(o.mask, 0xffffffff), word(o.xor, 0)
		return Marks{Sets: xor &^ mask, Changes: xor | ^mask}
	}
	return Marks{Sets: word(o.constant, 0), Changes: 0xffffffff}
}

func (d *decoder) ct(data []byte) {
	if wire.First(data, unix.NFTA_CT_SREG) != nil {
		return
	}
	d.load(d.register(data, unix.NFTA_CT_DREG), operand{field: ctFields[wire.U32(wire.First(data, unix.NFTA_CT_KEY))]})
}

func (d *decoder) bitwise(data []byte) {
	o := *d.register(data, unix.NFTA_BITWISE_SREG)
	if wire.U32(wire.First(data, nftaBitwiseOp)) != 0 || o.mask != nil || o.xor != nil {
		o.field = unknownField // shifts, two registers, or more than one step
	}
	o.mask = value(data, unix.NFTA_BITWISE_MASK)
	o.xor = value(data, unix.NFTA_BITWISE_XOR)
	d.load(d.register(data, unix.NFTA_BITWISE_DREG), o)
}

func value(data []byte, attr uint16) []byte {
	return bytes.Clone(wire.First(wire.First(data, attr), unix.NFTA_DATA_VALUE))
}

// compare reads cmp and range.
func (d *decoder) compare(name string, data []byte) {
	m := Match{of: *d.register(data, unix.NFTA_CMP_SREG)}
	op := wire.U32(wire.First(data, unix.NFTA_CMP_OP))
	v := value(data, unix.NFTA_CMP_DATA)
	r := span{v, v}
	switch {
	case name == "range":
		m.not = op == unix.NFT_RANGE_NEQ
		r = span{value(data, unix.NFTA_RANGE_FROM_DATA), value(data, unix.NFTA_RANGE_TO_DATA)}
	case op == unix.NFT_CMP_NEQ:
		m.not = true
	case op == unix.NFT_CMP_LTE:
		r.from = nil
	case op == unix.NFT_CMP_GT:
		m.not, r.from = true, nil
	case op == unix.NFT_CMP_GTE:
		r.to = nil
	case op == unix.NFT_CMP_LT:
		m.not, r.to = true, nil
	}
	m.ranges = []span{r}
	d.match(m)
}

func (d *decoder) lookup(data []byte) {
	set := wire.String(wire.First(data, unix.NFTA_LOOKUP_SET))
	key := *d.register(data, unix.NFTA_LOOKUP_SREG)
	dreg := wire.First(data, unix.NFTA_LOOKUP_DREG)
	switch {
	case dreg == nil:
		d.match(Match{of: key, Set: set, not: wire.U32(wire.First(data, unix.NFTA_LOOKUP_FLAGS))&unix.NFT_LOOKUP_F_INV != 0})
	case wire.U32(dreg) == unix.NFT_REG_VERDICT:
		d.rule.Verdict = Verdict{Kind: Lookup, Map: set, key: key}
		d.reads(&key)
	default: // what it finds is unknown, and it must find something
		d.match(Match{of: key, Set: set})
		d.load(d.register(data, unix.NFTA_LOOKUP_DREG), operand{})
	}
}

func (d *decoder) immediate(data []byte) {
	v := wire.First(data, unix.NFTA_IMMEDIATE_DATA)
	if verdict := wire.First(v, unix.NFTA_DATA_VERDICT); verdict != nil {
		d.rule.Verdict = decodeVerdict(verdict)
		return
	}
	d.load(d.register(data, unix.NFTA_IMMEDIATE_DREG), operand{constant: bytes.Clone(wire.First(v, unix.NFTA_DATA_VALUE))})
}

func decodeVerdict(b []byte) Verdict {
	switch code := int32(wire.U32(wire.First(b, unix.NFTA_VERDICT_CODE))); code {
	case unix.NFT_JUMP:
		return Verdict{Kind: Jump, Chain: wire.String(wire.First(b, unix.NFTA_VERDICT_CHAIN))}
	case unix.NFT_GOTO:
		return Verdict{Kind: Goto, Chain: wire.String(wire.First(b, unix.NFTA_VERDICT_CHAIN))}
	case unix.NFT_RETURN:
		return Verdict{Kind: Return}
	case nfAccept:
		return Verdict{Kind: Act, Action: Accept}
	case nfDrop:
		return Verdict{Kind: Act, Action: Drop}
	default:
		if code&0xff == nfQueue && code > 0 {
			return Verdict{Kind: Act, Action: Queue}
		}
		return Verdict{}
	}
}
