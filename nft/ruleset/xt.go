// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// Matches and targets of xtables, as iptables-nft puts them into rules
// (net/netfilter/nft_compat.c). Their information is a structure of C in the host's
// order, linux/netfilter/xt_*.h.

func (d *decoder) xtMatch(data []byte) {
	d.xtMatchOf(wire.String(wire.First(data, unix.NFTA_MATCH_NAME)), wire.U32(wire.First(data, unix.NFTA_MATCH_REV)), wire.First(data, unix.NFTA_MATCH_INFO))
}

func (d *decoder) xtMatchOf(name string, rev uint32, info []byte) {
	switch {
	case name == "comment":
		if d.rule.Comment == "" {
			d.rule.Comment = wire.String(info)
		}
	case name == "mark" && len(info) >= 9:
		if mask := binary.NativeEndian.Uint32(info[4:]); mask != 0xffffffff {
			d.rule.Mark.Reads |= mask
		}
		d.mayMatch()
	case name == "tcp" && len(info) >= 12:
		d.ports(info, info[11], info[8])
	case name == "udp" && len(info) >= 9:
		d.ports(info, info[8], 0)
	case name == "multiport" && len(info) >= 48:
		d.multiport(info)
	case name == "conntrack" && rev >= 2 && len(info) >= 154:
		d.conntrack(info)
	case name == "state" && len(info) >= 4:
		d.state(binary.NativeEndian.Uint32(info), false)
	default:
		d.mayMatch()
	}
}

// ports reads the ranges with which xt_tcp and xt_udp begin: two bounds of source
// ports, and two of destination ports. The two lowest bits of invert turn them around.
func (d *decoder) ports(info []byte, invert, more byte) {
	for i, f := range []field{sourcePort, destPort} {
		from, to := binary.NativeEndian.Uint16(info[4*i:]), binary.NativeEndian.Uint16(info[4*i+2:])
		if from == 0 && to == 0xffff {
			continue
		}
		d.match(Match{of: operand{field: f}, ranges: []span{portSpan(from, to)}, not: invert&(1<<i) != 0})
	}
	if more != 0 || invert&^3 != 0 { // TCP's options and flags
		d.mayMatch()
	}
}

func portSpan(from, to uint16) span {
	return span{binary.BigEndian.AppendUint16(nil, from), binary.BigEndian.AppendUint16(nil, to)}
}

// multiport reads struct xt_multiport_v1.
func (d *decoder) multiport(info []byte) {
	fields := map[byte]field{0: sourcePort, 1: destPort}
	m := Match{of: operand{field: fields[info[0]]}, not: info[47] != 0}
	for i := 0; i < int(min(info[1], 15)); i++ {
		from := binary.NativeEndian.Uint16(info[2+2*i:])
		to := from
		if info[32+i] != 0 { // the next one is the end of a range
			i++
			to = binary.NativeEndian.Uint16(info[2+2*min(i, 14):])
		}
		m.ranges = append(m.ranges, portSpan(from, to))
	}
	d.match(m)
}

// conntrack reads struct xt_conntrack_mtinfo2 and 3: behind eight addresses, two
// times and five numbers are what is asked for, what of it is inverted, and states.
func (d *decoder) conntrack(info []byte) {
	const flagState = 1
	at := func(off int) uint16 { return binary.NativeEndian.Uint16(info[off:]) }
	flags, invert, states := at(146), at(148), at(150)
	if flags&flagState != 0 {
		d.state(uint32(states), invert&flagState != 0)
	}
	const alias = 1 << 13 // says that it was written as -m state
	if flags&^(flagState|alias) != 0 {
		d.mayMatch()
	}
}

// state adds the condition that one of the states is the packet's.
func (d *decoder) state(states uint32, invert bool) {
	zero := make([]byte, 4)
	of := operand{field: xtState, mask: binary.NativeEndian.AppendUint32(nil, states)}
	d.match(Match{of: of, ranges: []span{{zero, zero}}, not: !invert})
}

// xtTargets are those that end a packet's way.
var xtTargets = map[string]Action{
	"REJECT": Reject, "NFQUEUE": Queue, "QUEUE": Queue, "DNAT": DNAT, "SNAT": SNAT, "MASQUERADE": Masquerade,
	"REDIRECT": Redirect, "TPROXY": TProxy, "DROP": Drop, "ACCEPT": Accept, "NETMAP": DNAT,
}

func (d *decoder) xtTarget(data []byte) {
	d.xtTargetOf(wire.String(wire.First(data, unix.NFTA_TARGET_NAME)), wire.First(data, unix.NFTA_TARGET_INFO))
}

func (d *decoder) xtTargetOf(name string, info []byte) {
	at := func(off int) uint32 {
		if len(info) < off+4 {
			return 0xffffffff
		}
		return binary.NativeEndian.Uint32(info[off:])
	}
	switch name {
	case "MARK": // mark, mask: the mark becomes (old &^ mask) ^ mark
		d.rule.Mark.Add(Marks{Sets: at(0) & at(4), Changes: at(0) | at(4)})
	case "CONNMARK": // ctmark, ctmask, nfmask; the last byte is what to do
		const restore = 2
		if mode := modeOf(info); mode == restore {
			d.rule.Mark.Changes |= at(8)
		}
	case "NOTRACK":
		d.rule.NoTrack = true
	case "CT":
		if len(info) >= 2 && binary.NativeEndian.Uint16(info)&3 != 0 {
			d.rule.NoTrack = true
		}
	default:
		if action, ok := xtTargets[name]; ok {
			d.act(action)
		}
	}
}

// modeOf is the mode of CONNMARK: behind three numbers, and in revision 2 also
// behind two bytes about shifts.
func modeOf(info []byte) byte {
	switch {
	case len(info) >= 15 && info[14] != 0:
		return info[14]
	case len(info) >= 13:
		return info[12]
	}
	return 0
}
