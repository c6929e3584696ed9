// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// Rule is one rule, as nft text and as the kernel's expressions.
type Rule struct {
	Text  string
	Exprs []expr.Any
}

// clause is a part of a rule: its nft text and what that compiles to, side by
// side. Registers and header offsets appear in this file only. That text and
// code say the same is tested against nft itself.
type clause struct {
	text string
	code []expr.Any
}

// Encode returns the rule's expressions as the kernel takes them.
func (r Rule) Encode(f Family) ([][]byte, error) {
	all := make([][]byte, len(r.Exprs))
	for i, e := range r.Exprs {
		if o, ok := e.(*ctOriginal); ok {
			all[i] = o.encode()
			continue
		}
		var err error
		if all[i], err = expr.Marshal(uint8(f), e); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// rule joins clauses.
func rule(parts ...clause) Rule {
	var r Rule
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = p.text
		r.Exprs = append(r.Exprs, p.code...)
	}
	r.Text = strings.Join(words, " ")
	return r
}

// The kernel has sixteen registers of four bytes; an expression that needs more
// takes several in a row.
const firstReg = unix.NFT_REG32_00

// Offsets in the network header (RFC 791, RFC 8200) and the transport header.
const (
	ip4Saddr, ip4Daddr = 12, 16
	ip6Saddr, ip6Daddr = 8, 24
	thDport            = 2
)

// load puts one field into registers from reg on.
func load(f Family, fl field, modulus uint32, reg uint32) expr.Any {
	switch fl {
	case fieldProto:
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}
	case fieldDaddrRange:
		fl = fieldDaddr
	case fieldSaddrRange:
		fl = fieldSaddr
	case fieldPort:
		return &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: thDport, Len: 2, DestRegister: reg}
	case fieldSlot:
		return &expr.Numgen{Register: reg, Modulus: modulus, Type: unix.NFT_NG_RANDOM}
	}
	offset := map[Family]map[field]uint32{
		IPv4: {fieldSaddr: ip4Saddr, fieldDaddr: ip4Daddr},
		IPv6: {fieldSaddr: ip6Saddr, fieldDaddr: ip6Daddr},
	}[f][fl]
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(f.addrLen()), DestRegister: reg}
}

// key loads a set's key; modulus is numgen's, where the key has a slot.
func key(f Family, s Set, modulus uint32) clause {
	var c clause
	words := make([]string, 0, 4)
	reg := uint32(firstReg)
	for _, fl := range layouts[s].key {
		c.code = append(c.code, load(f, fl, modulus, reg))
		if fl == fieldSlot {
			words = append(words, "numgen random mod "+itoa(modulus))
		} else {
			words = append(words, fieldsText(f, []field{fl}))
		}
		reg += registers(fl.size(f))
	}
	c.text = strings.Join(words, " . ")
	return c
}

// inSet matches packets whose key is in the set: `ip daddr @KUBE-NODE-IP`.
func inSet(f Family, s Set) clause {
	c := key(f, s, 0)
	c.text += " @" + s.String()
	c.code = append(c.code, &expr.Lookup{SourceRegister: firstReg, SetName: s.String()})
	return c
}

// notInSet matches packets whose key is not in the set.
func notInSet(f Family, s Set) clause {
	c := key(f, s, 0)
	c.text += " != @" + s.String()
	c.code = append(c.code, &expr.Lookup{SourceRegister: firstReg, SetName: s.String(), Invert: true})
	return c
}

// vmap goes where the verdict map says: `ip daddr . … vmap @KUBE-SERVICES`.
func vmap(f Family, s Set) clause {
	c := key(f, s, 0)
	c.text += " vmap @" + s.String()
	c.code = append(c.code, &expr.Lookup{SourceRegister: firstReg, SetName: s.String(), IsDestRegSet: true})
	return c
}

// dnat translates to the endpoint in a random slot below n; it does nothing if
// the slot is empty: `dnat ip to ip daddr . … . numgen random mod 3 map @KUBE-SEP`.
func dnat(f Family, s Set, n uint32) clause {
	c := key(f, s, n)
	c.text = "dnat " + f.String() + " to " + c.text + " map @" + s.String()
	c.code = append(c.code,
		&expr.Lookup{SourceRegister: firstReg, DestRegister: firstReg, IsDestRegSet: true, SetName: s.String()},
		natTo(f))
	return c
}

// natTo translates to the address and port in the first registers.
func natTo(f Family) expr.Any {
	return &expr.NAT{
		Type:        expr.NATTypeDestNAT,
		Family:      uint32(f),
		RegAddrMin:  firstReg,
		RegProtoMin: firstReg + registers(uint32(f.addrLen())),
	}
}

// source matches the source address against a prefix: `ip saddr != 10.0.0.0/8`.
func source(f Family, op expr.CmpOp, p netip.Prefix) clause {
	return address(f, fieldSaddr, op, p)
}

// destination matches the destination address against a prefix.
func destination(f Family, op expr.CmpOp, p netip.Prefix) clause {
	return address(f, fieldDaddr, op, p)
}

// prefixText writes a prefix as nft does.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func address(f Family, fl field, op expr.CmpOp, p netip.Prefix) clause {
	p = p.Masked()
	text := fieldsText(f, []field{fl}) + " "
	if op == expr.CmpOpNeq {
		text += "!= "
	}
	text += prefixText(p)
	word := load(f, fl, 0, firstReg).(*expr.Payload)
	data := p.Addr().AsSlice()
	if p.Bits()%8 == 0 && p.Bits() > 0 {
		// Whole bytes are loaded and compared without a mask, as nft does it.
		word.Len = uint32(p.Bits() / 8)
		return clause{text, []expr.Any{word, &expr.Cmp{Op: op, Register: firstReg, Data: data[:word.Len]}}}
	}
	mask := make([]byte, len(data))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return clause{text, []expr.Any{
		word,
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: word.Len, Mask: mask, Xor: make([]byte, len(data))},
		&expr.Cmp{Op: op, Register: firstReg, Data: data},
	}}
}

// notFromInterface matches packets that came in elsewhere than on an interface,
// or on those whose names begin alike: `iifname != "veth*"`. Packets of the node's
// own processes came in nowhere.
func notFromInterface(name string) clause {
	data := append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		data = []byte(prefix)
	}
	return clause{fmt.Sprintf("iifname != %q", name), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: firstReg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: firstReg, Data: data},
	}}
}

// localDestination matches this host's own addresses: `fib daddr type local`.
func localDestination() clause {
	return clause{"fib daddr type local", []expr.Any{
		&expr.Fib{Register: firstReg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: native(unix.RTN_LOCAL)},
	}}
}

// notNew matches all but the first packets of connections. A packet has exactly
// one state, so nft compares instead of masking.
func notNew() clause {
	return clause{"ct state != new", []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: firstReg},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: firstReg, Data: native(expr.CtStateBitNEW)},
	}}
}

// Bits of a connection's status (linux/netfilter/nf_conntrack_common.h).
const (
	statusConfirmed = 1 << 3 // IPS_CONFIRMED
	statusDNAT      = 1 << 5 // IPS_DST_NAT
)

// translated matches connections whose destination was translated.
func translated() clause { return status("dnat", statusDNAT) }

// confirmed matches all packets of a connection but its first one.
func confirmed() clause { return status("confirmed", statusConfirmed) }

func status(word string, bit uint32) clause {
	return clause{"ct status " + word, []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATUS, Register: firstReg},
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 4, Mask: native(bit), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: firstReg, Data: native(0)},
	}}
}

// marked matches packets with the mark bit.
func marked(mark uint32) clause {
	return clause{"meta mark & " + hex32(mark) + " == " + hex32(mark), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: firstReg},
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 4, Mask: native(mark), Xor: native(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: firstReg, Data: native(mark)},
	}}
}

// setMark sets the mark bit and leaves the others.
func setMark(mark uint32) clause {
	return writeMark("meta mark set meta mark | "+hex32(mark), ^mark, mark)
}

// flipMark inverts the mark bit and leaves the others.
func flipMark(mark uint32) clause {
	return writeMark("meta mark set meta mark ^ "+hex32(mark), ^uint32(0), mark)
}

func writeMark(text string, mask, xor uint32) clause {
	return clause{text, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: firstReg},
		&expr.Bitwise{SourceRegister: firstReg, DestRegister: firstReg, Len: 4, Mask: native(mask), Xor: native(xor)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: firstReg},
	}}
}

func masquerade() clause {
	return clause{"masquerade fully-random", []expr.Any{&expr.Masq{FullyRandom: true}}}
}

// reject answers ICMP port unreachable, to TCP too, as kube-proxy does. Type 0
// is NFT_REJECT_ICMP_UNREACH; code 3 and 4 are the family's port unreachable.
func reject(f Family) clause {
	code := uint8(3)
	if f == IPv6 {
		code = 4
	}
	return clause{"reject", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: code}}}
}

func jump(chain string) clause {
	return clause{"jump " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

func goTo(chain string) clause {
	return clause{"goto " + chain, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}}
}

func accept() clause {
	return clause{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
}

func drop() clause {
	return clause{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// ctOriginal loads a part of what a connection was before translation. Of the
// library's own expression the encoding would not do: it gives addresses no
// direction, and ports one of four bytes where the kernel wants one.
type ctOriginal struct{ expr.Ct }

// Keys of the original tuple's addresses (linux/netfilter/nf_tables.h).
const (
	ctSrcIP  = 19
	ctDstIP  = 20
	ctSrcIP6 = 21

	ctDirOriginal = 0
)

func ctSaddr(f Family) expr.CtKey {
	if f == IPv4 {
		return ctSrcIP
	}
	return ctSrcIP6
}

func ctDaddr(f Family) expr.CtKey { return ctSaddr(f) + ctDstIP - ctSrcIP }

func loadOriginal(key expr.CtKey, reg uint32) expr.Any {
	return &ctOriginal{expr.Ct{Key: key, Register: reg}}
}

func (o *ctOriginal) encode() []byte {
	word := func(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
	data := wire.AppendAttr(nil, unix.NFTA_CT_KEY, word(uint32(o.Key))...)
	data = wire.AppendAttr(data, unix.NFTA_CT_DREG, word(o.Register)...)
	data = wire.AppendAttr(data, unix.NFTA_CT_DIRECTION, ctDirOriginal)
	b := wire.AppendAttr(nil, unix.NFTA_EXPR_NAME, []byte("ct\x00")...)
	return wire.AppendAttr(b, unix.NLA_F_NESTED|unix.NFTA_EXPR_DATA, data...)
}
