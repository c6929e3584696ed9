// SPDX-License-Identifier: Apache-2.0

package ruleset

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// FuzzRule decodes rules and elements of no kernel: whatever they are, they are read
// without a panic, and a packet can be followed through them.
func FuzzRule(f *testing.F) {
	expression := func(name string, data []byte) []byte {
		return wire.AppendAttr(named(nil, 1, name), 2, data...)
	}
	for _, name := range []string{"payload", "meta", "ct", "bitwise", "cmp", "range", "lookup", "immediate", "match", "target", "nat"} {
		f.Add(name, wire.AppendAttr(wire.AppendAttr(nil, 1, 0, 0, 0, 1), 2, 0, 0, 0, 2))
	}
	for _, name := range []string{"tcp", "udp", "multiport", "conntrack", "state", "mark", "MARK", "CONNMARK", "CT"} {
		f.Add("match", wire.AppendAttr(wire.AppendAttr(named(nil, 1, name), 2, 0, 0, 0, 3), 3, bytes.Repeat([]byte{1}, 160)...))
		f.Add("target", wire.AppendAttr(named(nil, 1, name), 3, bytes.Repeat([]byte{1}, 16)...))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		list := wire.AppendAttr(nil, 1, expression("payload", wire.AppendAttr(wire.AppendAttr(nil, 1, 0, 0, 0, 1), 2, 0, 0, 0, 1))...)
		list = wire.AppendAttr(list, 1, expression(name, data[:min(len(data), 1<<14)])...)
		rule := decodeRule(Inet, wire.AppendAttr(nil, 4, list...))
		base := &Chain{Name: "f", Hook: "forward"}
		table := &Table{Family: Inet, Chains: map[string]*Chain{"f": base}, Sets: map[string]*Set{}}
		base.Total = 1
		base.note(&rule)
		base.Rules = []Rule{rule}
		table.Fate(base, Packet{Family: IPv4, New: true, Translated: true, In: "eth0", DestPort: 80, Proto: 6})
		table.Reach(base)
		decodeElement(data)
	})
}

// FuzzLegacy parses tables of xtables of no kernel.
func FuzzLegacy(f *testing.F) {
	l := &xtLayouts[0]
	entry := make([]byte, l.size+xtHeader+8)
	binary.NativeEndian.PutUint16(entry[l.targetOffset:], uint16(l.size))
	binary.NativeEndian.PutUint16(entry[l.targetOffset+2:], uint16(len(entry)))
	info := make([]byte, xtInfoLen)
	info[xtNameLen] = 0x0f
	f.Add(info, append(bytes.Clone(entry), entry...))
	f.Fuzz(func(t *testing.T, info, blob []byte) {
		if len(info) < xtInfoLen {
			return // the kernel fills it
		}
		for i := range xtLayouts {
			table := xtLayouts[i].parse("filter", info, blob)
			for _, c := range table.Base() {
				table.Fate(c, Packet{Family: table.Family, New: true, DestPort: 80, Proto: 6})
			}
		}
	})
}
