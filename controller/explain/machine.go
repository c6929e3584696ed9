// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// state is a packet on its way.
type state struct {
	family     nft.Family
	src, dst   netip.Addr
	port       uint16
	proto      nft.Proto
	in         string
	mark       uint32
	translated bool
	known      bool // whether the source is
}

// machine runs the expressions of one rule as nf_tables does (net/netfilter/nft_*.c).
type machine struct {
	w    *walk
	s    *state
	regs [64]byte
	// slots are what a lookup found for each number that could be drawn.
	modulus uint32
	slots   []netip.AddrPort
	// bySource: the rule looked at where the packet comes from.
	bySource bool
	element  *nft.Element // that was met
	asked    bool         // a set was asked
}

// outcome is how a rule ends.
type outcome struct {
	kind  outcomeKind
	chain nft.Chain // of jump and goTo, if an element led there
	name  string
}

type outcomeKind uint8

const (
	noMatch outcomeKind = iota // an expression said no
	done                       // all expressions did, and the next rule follows
	jumps
	goesTo
	returns
	accepts
	drops
	rejects
	translates
	masquerades
)

func (m *machine) reg(r uint32) []byte { return m.regs[(r-unix.NFT_REG32_00)*4:] }

// run runs a rule.
func (m *machine) run(r nft.Rule) outcome {
	for _, e := range r.Exprs {
		if o, ends := m.eval(e); ends {
			return o
		}
	}
	return outcome{kind: done}
}

// eval runs an expression, and says whether the rule ends with it.
func (m *machine) eval(e expr.Any) (o outcome, ends bool) {
	switch e := e.(type) {
	case *expr.Meta:
		m.meta(e)
	case *expr.Payload:
		m.payload(e)
	case *expr.Ct:
		m.conntrack(e)
	case *expr.Fib:
		kind := uint32(unix.RTN_UNICAST)
		if m.w.host.Route(m.s.dst, netip.Addr{}, "").Local {
			kind = unix.RTN_LOCAL
		}
		binary.NativeEndian.PutUint32(m.reg(e.Register), kind)
	case *expr.Bitwise:
		m.bitwise(e)
	case *expr.Cmp:
		equal := bytes.Equal(m.reg(e.Register)[:len(e.Data)], e.Data)
		return outcome{}, equal != (e.Op == expr.CmpOpEq)
	case *expr.Numgen:
		m.modulus = e.Modulus
	case *expr.Lookup:
		return m.lookup(e)
	case *expr.NAT:
		return outcome{kind: translates}, true
	case *expr.Masq:
		return outcome{kind: masquerades}, true
	case *expr.Reject:
		return outcome{kind: rejects}, true
	case *expr.Verdict:
		return verdict(e), true
	default:
		return outcome{}, true // nothing else is in the chains that are walked
	}
	return outcome{}, false
}

func verdict(e *expr.Verdict) outcome {
	switch e.Kind {
	case expr.VerdictAccept:
		return outcome{kind: accepts}
	case expr.VerdictDrop:
		return outcome{kind: drops}
	case expr.VerdictJump:
		return outcome{kind: jumps, name: e.Chain}
	case expr.VerdictGoto:
		return outcome{kind: goesTo, name: e.Chain}
	}
	return outcome{kind: returns}
}

func (m *machine) meta(e *expr.Meta) {
	switch {
	case e.SourceRegister: // only the mark is ever written
		m.s.mark = binary.NativeEndian.Uint32(m.reg(e.Register))
	case e.Key == expr.MetaKeyL4PROTO:
		copy(m.reg(e.Register), []byte{uint8(m.s.proto), 0, 0, 0})
	case e.Key == expr.MetaKeyMARK:
		binary.NativeEndian.PutUint32(m.reg(e.Register), m.s.mark)
	case e.Key == expr.MetaKeyIIFNAME:
		m.bySource = true
		var name [unix.IFNAMSIZ]byte
		copy(name[:], m.s.in)
		copy(m.reg(e.Register), name[:])
	}
}

// Where addresses are in the network header, and the destination port behind it.
var (
	sourceAt = map[nft.Family]uint32{nft.IPv4: 12, nft.IPv6: 8}
	targetAt = map[nft.Family]uint32{nft.IPv4: 16, nft.IPv6: 24}
)

func (m *machine) payload(e *expr.Payload) {
	to := m.reg(e.DestRegister)
	switch {
	case e.Base == expr.PayloadBaseTransportHeader:
		copy(to, []byte{uint8(m.s.port >> 8), uint8(m.s.port), 0, 0})
	case e.Offset == sourceAt[m.s.family]:
		m.bySource = true
		copy(to[:e.Len], m.s.src.AsSlice())
	case e.Offset == targetAt[m.s.family]:
		copy(to[:e.Len], m.s.dst.AsSlice())
	}
}

// statusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const statusDNAT = 1 << 5

// conntrack tells of a connection that begins.
func (m *machine) conntrack(e *expr.Ct) {
	v := uint32(0)
	switch {
	case e.Key == expr.CtKeySTATE:
		v = expr.CtStateBitNEW
	case e.Key == expr.CtKeySTATUS && m.s.translated:
		v = statusDNAT
	}
	binary.NativeEndian.PutUint32(m.reg(e.Register), v)
}

func (m *machine) bitwise(e *expr.Bitwise) {
	from, to := m.reg(e.SourceRegister), m.reg(e.DestRegister)
	for i := range e.Len {
		to[i] = from[i]&e.Mask[i] ^ e.Xor[i]
	}
}

// lookup asks a set.
func (m *machine) lookup(e *expr.Lookup) (outcome, bool) {
	m.asked = true
	set, ours := nft.ParseSet(e.SetName)
	if !ours { // a map from clients to endpoints
		return m.client(e.SetName)
	}
	key, ok := m.key(e, set)
	switch {
	case set.HoldsEndpoints():
		m.slots = m.w.table.Slots(set, key, m.modulus)
		return outcome{}, false
	case set == nft.SourceRanges && !m.s.known:
		m.w.x.OnlyFrom = m.w.table.Sources(frontendKey(key))
		return outcome{}, e.Invert // taken for one that is let in
	}
	var found nft.Element
	if ok {
		found, ok = m.w.table.Get(set, key)
	}
	if ok {
		m.element = &found
	}
	switch {
	case !e.IsDestRegSet:
		return outcome{}, ok == e.Invert
	case !ok:
		return outcome{}, true
	}
	c := found.Value.Verdict
	switch {
	case c.Kind == nft.Drop:
		return outcome{kind: drops, chain: c}, true
	case c.Returns():
		return outcome{kind: jumps, chain: c, name: c.String()}, true
	}
	return outcome{kind: goesTo, chain: c, name: c.String()}, true
}

// key reads a set's key from the registers; ok is false for one that is never in it.
func (m *machine) key(e *expr.Lookup, set nft.Set) (nft.Key, bool) {
	length := set.Type(m.s.family).KeyLen
	k, err := nft.DecodeKey(m.reg(e.SourceRegister)[:length], m.s.family, set)
	return k, err == nil
}

// client asks for the endpoint of the packet's source.
func (m *machine) client(name string) (outcome, bool) {
	m.w.x.Affinity = true
	if !m.s.known {
		return outcome{}, true
	}
	r, ok := m.w.table.Client(name, m.s.src)
	if !ok {
		return outcome{}, true
	}
	r.TimeoutSeconds, r.LeftSeconds = int(r.Timeout.Seconds()), int(r.Left.Seconds())
	m.w.x.Remembered, m.slots = &r, []netip.AddrPort{r.Endpoint}
	return outcome{}, false
}
