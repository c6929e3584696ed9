// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// TableName is the name of the table, in family inet.
const TableName = "kube-nft-trace"

// OwnTable is the table that traces.
var OwnTable = Table{Inet, TableName}

// Match says which packets are followed. What is zero is not looked at.
type Match struct {
	Src, Dst netip.Prefix
	// Local matches packets to this host's own addresses.
	Local bool
	Proto nft.Proto
	// Port is the destination port. It needs Proto.
	Port uint16
}

// Filter says which packets are followed, and how many.
type Filter struct {
	// Any of these.
	Matches []Match
	// All are all packets of a connection; otherwise only those that may be its
	// first one, which rules decide about.
	All bool
	// Rate bounds the packets of each second, in the kernel.
	Rate uint32
}

// Base says where a chain meets packets.
type Base struct {
	Hook     string
	Number   uint32 // NF_INET_* (linux/netfilter.h)
	Priority int32
}

// Chain is a chain of the table; Base is nil for one that others lead to.
type Chain struct {
	Name  string
	Base  *Base
	Rules []nft.Rule
}

// follow is the chain for packets that match.
const follow = "FOLLOW"

// Names of base chains: the hook's in capitals, and one of these.
const (
	begins = "-BEGINS"
	ends   = "-ENDS"
)

var hooks = [...]string{"prerouting", "input", "forward", "output", "postrouting"}

// Chains returns the table's chains, each after those that it leads to.
func (f Filter) Chains() []Chain {
	all := []Chain{{Name: follow, Rules: f.follow()}}
	for number, hook := range hooks {
		first := Chain{Name: strings.ToUpper(hook) + begins, Base: &Base{hook, uint32(number), math.MinInt32}}
		if hook == "prerouting" || hook == "output" {
			for _, m := range f.Matches {
				first.Rules = append(first.Rules, m.rule())
			}
		}
		// At the last priority a chain that comes later is asked earlier (netfilter/core.c,
		// nf_hook_entries_grow): conntrack, which confirms connections there, is behind us.
		all = append(all, first, Chain{Name: strings.ToUpper(hook) + ends, Base: &Base{hook, uint32(number), math.MaxInt32}})
	}
	return all
}

func (f Filter) follow() []nft.Rule {
	var rules []nft.Rule
	if !f.All {
		rules = append(rules,
			// meta l4proto tcp @th,104,8 & 0x12 != 0x2 return
			join(proto(nft.TCP), masked(tcpFlagsAt, tcpSYN|tcpACK, tcpSYN), returns()),
			// meta l4proto sctp @th,96,8 != 1 return
			join(proto(nft.SCTP), chunkNot(sctpINIT), returns()))
	}
	// limit rate 10/second burst 10 packets meta nftrace set 1
	return append(rules, join(limit(f.Rate), nftrace()))
}

// rule returns the rule that has packets followed: `ip saddr 10.0.0.0/8 ip daddr
// 10.96.0.80 meta l4proto tcp th dport 80 jump FOLLOW`.
func (m Match) rule() nft.Rule {
	var parts []nft.Rule
	if m.Src.IsValid() {
		parts = append(parts, address("saddr", m.Src))
	}
	if m.Dst.IsValid() {
		parts = append(parts, address("daddr", m.Dst))
	}
	if m.Local {
		parts = append(parts, local())
	}
	if m.Proto != 0 {
		parts = append(parts, proto(m.Proto))
	}
	if m.Port != 0 {
		parts = append(parts, port(m.Port))
	}
	return join(append(parts, jump(follow))...)
}

// join makes one rule of its parts.
func join(parts ...nft.Rule) nft.Rule {
	var r nft.Rule
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = p.Text
		r.Exprs = append(r.Exprs, p.Exprs...)
	}
	r.Text = strings.Join(words, " ")
	return r
}

const reg = unix.NFT_REG32_00

// address matches the source or destination address against a prefix:
// `ip daddr 10.96.0.0/16`. In family inet the packet's family is asked first.
func address(word string, p netip.Prefix) nft.Rule {
	p = p.Masked()
	f := nft.FamilyOf(p.Addr())
	offset := map[nft.Family]map[string]uint32{
		nft.IPv4: {"saddr": 12, "daddr": 16},
		nft.IPv6: {"saddr": 8, "daddr": 24},
	}[f][word]
	data := p.Addr().AsSlice()
	exprs := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{uint8(f)}},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(data)), DestRegister: reg},
	}
	value := p.Addr().String()
	if !p.IsSingleIP() {
		value = p.String()
		mask := make([]byte, len(data))
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		exprs = append(exprs, &expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(data)), Mask: mask, Xor: make([]byte, len(data))})
	}
	return nft.Rule{
		Text:  f.String() + " " + word + " " + value,
		Exprs: append(exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: data}),
	}
}

// local matches packets to this host: `fib daddr type local`.
func local() nft.Rule {
	return nft.Rule{Text: "fib daddr type local", Exprs: []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	}}
}

// proto matches the protocol: `meta l4proto tcp`.
func proto(p nft.Proto) nft.Rule {
	return nft.Rule{Text: "meta l4proto " + p.String(), Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{uint8(p)}},
	}}
}

// transport loads bytes of the transport header.
func transport(at, n uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: at, Len: n, DestRegister: reg}
}

// port matches the destination port: `th dport 80`.
func port(n uint16) nft.Rule {
	return nft.Rule{Text: fmt.Sprintf("th dport %d", n), Exprs: []expr.Any{
		transport(2, 2),
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: binary.BigEndian.AppendUint16(nil, n)},
	}}
}

// masked matches packets in which bits of a byte have another value.
func masked(at uint32, mask, not byte) nft.Rule {
	return nft.Rule{Text: fmt.Sprintf("@th,%d,8 & %#x != %#x", at*8, mask, not), Exprs: []expr.Any{
		transport(at, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{not}},
	}}
}

// chunkNot matches SCTP packets that begin with another chunk.
func chunkNot(chunk byte) nft.Rule {
	return nft.Rule{Text: fmt.Sprintf("@th,%d,8 != %#x", sctpChunkAt*8, chunk), Exprs: []expr.Any{
		transport(sctpChunkAt, 1),
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: []byte{chunk}},
	}}
}

// limit matches so many packets in a second and no more.
func limit(rate uint32) nft.Rule {
	return nft.Rule{Text: fmt.Sprintf("limit rate %d/second burst %d packets", rate, rate), Exprs: []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: rate},
	}}
}

// nftrace has the kernel tell of a packet from here on.
func nftrace() nft.Rule {
	return nft.Rule{Text: "meta nftrace set 1", Exprs: []expr.Any{
		&expr.Immediate{Register: reg, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: reg},
	}}
}

func returns() nft.Rule {
	return nft.Rule{Text: "return", Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}
}

func jump(chain string) nft.Rule {
	return nft.Rule{Text: "jump " + chain, Exprs: []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// Format returns the table as a script for nft, but for its owner, whom a script
// cannot name.
func (f Filter) Format() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", OwnTable)
	for _, c := range f.Chains() {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Base != nil {
			fmt.Fprintf(&b, "\t\ttype filter hook %s priority %d; policy accept;\n", c.Base.Hook, c.Base.Priority)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", r.Text)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}
