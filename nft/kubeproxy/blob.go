// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// layout says where things are in an entry of a table of xtables
// (linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h).
type layout struct {
	dst, dstMask, addrLen    int
	proto, inverted          int
	targetOffset, nextOffset int
	counters, entryLen       int
}

var layouts = map[nft.Family]layout{
	nft.IPv4: {dst: 4, dstMask: 12, addrLen: 4, proto: 80, inverted: 83, targetOffset: 88, nextOffset: 90, counters: 96, entryLen: 112},
	nft.IPv6: {dst: 16, dstMask: 48, addrLen: 16, proto: 128, inverted: 132, targetOffset: 140, nextOffset: 142, counters: 152, entryLen: 168},
}

// Of linux/netfilter/x_tables.h.
const (
	nameLen        = 32 // of a table
	extensionLen   = 32 // struct xt_entry_match and xt_entry_target: size, name, revision
	extensionName  = 29
	counterLen     = 16
	numHooks       = 5
	errorTarget    = "ERROR" // begins a chain, and is the last entry
	invertedDst    = 0x10    // IPT_INV_DSTIP, IP6T_INV_DSTIP
	invertedProto  = 0x40    // IPT_INV_PROTO, IP6T_INV_PROTO
	standardTarget = ""
	verdictDrop    = -1 // -NF_DROP - 1
)

var hookNames = [numHooks]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// entry is a rule of a table, or what begins or ends a chain.
type entry struct {
	offset int
	bytes  []byte
	chain  string
	head   bool // begins a chain that somebody has made
	tail   bool // ends a chain
	rule   rule
	jump   int // where it jumps to, an offset; -1 is nowhere
}

// blob is a table of xtables as the kernel hands it out.
type blob struct {
	family     nft.Family
	name       string
	validHooks uint32
	hookEntry  [numHooks]uint32
	underflow  [numHooks]uint32
	entries    []entry
}

// parse reads the entries. It fails on what the kernel does not write.
func (b *blob) parse(data []byte) error {
	l := layouts[b.family]
	for offset := 0; offset < len(data); {
		rest := data[offset:]
		if len(rest) < l.entryLen+extensionLen {
			return fmt.Errorf("entry at %d of %d bytes is cut off", offset, len(data))
		}
		target := int(binary.NativeEndian.Uint16(rest[l.targetOffset:]))
		next := int(binary.NativeEndian.Uint16(rest[l.nextOffset:]))
		if target < l.entryLen || next < target+extensionLen || next > len(rest) {
			return fmt.Errorf("entry at %d of %d bytes: target at %d, next at %d", offset, len(data), target, next)
		}
		e := entry{offset: offset, bytes: rest[:next], jump: -1}
		e.read(b.family, target)
		b.entries = append(b.entries, e)
		offset += next
	}
	return b.assign()
}

// assign says which chain each entry belongs to. Chains of hooks come first, then those
// that somebody has made, which end where the next begins.
func (b *blob) assign() error {
	heads := make(map[int]string) // by the offset of the first rule
	chain, end := "", -1
	for i := range b.entries {
		e := &b.entries[i]
		for h, name := range hookNames {
			if b.validHooks&(1<<h) != 0 && int(b.hookEntry[h]) == e.offset {
				chain, end = name, int(b.underflow[h])
			}
		}
		if e.rule.chain != "" { // the head of a chain, or the end of the table
			chain, end = e.rule.chain, -1
			e.head = i < len(b.entries)-1
			heads[e.offset+len(e.bytes)] = chain
			if i > 0 && b.entries[i-1].chain != "" && !b.entries[i-1].head {
				b.entries[i-1].tail = true
			}
		}
		e.chain, e.rule.chain = chain, chain
		e.tail = e.tail || e.offset == end
	}
	if len(b.entries) == 0 || b.entries[len(b.entries)-1].head {
		return fmt.Errorf("no last entry")
	}
	for i := range b.entries {
		// A jump to the next entry is none: that is a rule without a target.
		if e := &b.entries[i]; e.jump >= 0 && e.jump != e.offset+len(e.bytes) {
			e.rule.target = heads[e.jump]
		}
	}
	return nil
}

// read reads what matters of an entry. The name of a chain that it begins is left in
// its rule.
func (e *entry) read(f nft.Family, target int) {
	l := layouts[f]
	inverted := e.bytes[l.inverted]
	dst, mask := e.bytes[l.dst:l.dst+l.addrLen], e.bytes[l.dstMask:l.dstMask+l.addrLen]
	if addr, ok := netip.AddrFromSlice(dst); ok && slices.Max(mask) != 0 {
		e.rule.dst = netip.PrefixFrom(addr, addr.BitLen())
		if slices.Min(mask) != 0xff || inverted&invertedDst != 0 {
			e.rule.dst = netip.PrefixFrom(addr, 0) // more than one address
		}
	}
	if inverted&invertedProto == 0 {
		e.rule.proto = nft.Proto(binary.NativeEndian.Uint16(e.bytes[l.proto:]))
	}
	for at := l.entryLen; at+extensionLen <= target; {
		size := int(binary.NativeEndian.Uint16(e.bytes[at:]))
		if size < extensionLen || at+size > target {
			break
		}
		e.rule.match(wire.String(e.bytes[at+2:at+2+extensionName]), e.bytes[at+extensionLen:at+size])
		at += size
	}
	data := e.bytes[target+extensionLen:]
	switch wire.String(e.bytes[target+2 : target+2+extensionName]) {
	case errorTarget:
		e.rule.chain = wire.String(data)
	case standardTarget:
		if len(data) >= 4 {
			e.jump = int(int32(binary.NativeEndian.Uint32(data)))
		}
	}
}

// table is the blob as a table of iptables.
func (b *blob) table() *iptable {
	t := &iptable{backend: IPTablesLegacy, family: b.family, name: b.name}
	for _, e := range b.entries[:len(b.entries)-1] {
		if e.tail && e.chain == "FORWARD" {
			t.drops = e.jump == verdictDrop
		}
		switch {
		case e.head:
			t.chains = append(t.chains, e.chain)
		case !e.tail:
			t.rules = append(t.rules, e.rule)
		}
	}
	return t
}

// without returns the table without kube-proxy's leftovers: its entries, and for each of
// them the place of its counters among those that there were. What jumps, and where
// hooks begin and end, is moved along.
func (b *blob) without() (edited *blob, data []byte, from []int) {
	edit := b.table().leftovers().edit
	flush, drop := setOfNames(edit.flush), setOfNames(edit.drop)
	edited = &blob{family: b.family, name: b.name, validHooks: b.validHooks}
	moved := make(map[int]int, len(b.entries)) // old offsets to new ones
	last := len(b.entries) - 1
	for i, e := range b.entries {
		moved[e.offset] = len(data) // of what goes: where the next one that stays comes to be
		switch {
		case i == last:
		case drop[e.chain],
			flush[e.chain] && !e.head && !e.tail,
			!e.head && !e.tail && slices.Contains(edit.jumps, e.rule):
			continue
		}
		data = append(data, e.bytes...)
		from = append(from, i)
	}
	b.move(edited, data, from, moved)
	return edited, data, from
}

// move sets the offsets in entries that have moved, and those of hooks.
func (b *blob) move(edited *blob, data []byte, from []int, moved map[int]int) {
	l := layouts[b.family]
	at := 0
	for _, i := range from {
		e := b.entries[i]
		if e.jump >= 0 {
			target := at + int(binary.NativeEndian.Uint16(e.bytes[l.targetOffset:]))
			to := at + len(e.bytes)
			if e.jump != e.offset+len(e.bytes) {
				to = moved[e.jump]
			}
			binary.NativeEndian.PutUint32(data[target+extensionLen:], uint32(to))
		}
		at += len(e.bytes)
	}
	for h := range numHooks {
		if b.validHooks&(1<<h) != 0 {
			edited.hookEntry[h] = uint32(moved[int(b.hookEntry[h])])
			edited.underflow[h] = uint32(moved[int(b.underflow[h])])
		}
	}
}

func setOfNames(names []string) map[string]bool {
	all := make(map[string]bool, len(names))
	for _, name := range names {
		all[name] = true
	}
	return all
}

// info is struct ipt_getinfo.
const infoLen = nameLen + 4 + 2*4*numHooks + 4 + 4

func (b *blob) readInfo(info []byte) (entries, size uint32) {
	words := info[nameLen:]
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(words[4*i:]) }
	b.validHooks = word(0)
	for h := range numHooks {
		b.hookEntry[h], b.underflow[h] = word(1+h), word(1+numHooks+h)
	}
	return word(1 + 2*numHooks), word(2 + 2*numHooks)
}

// pointerAt is where struct ipt_replace has the address of counters, and replaceLen its
// length. Both are of 64-bit architectures.
const (
	pointerAt  = nameLen + 3*4 + 2*4*numHooks + 4
	replaceLen = pointerAt + 8
)

// replace is struct ipt_replace with the entries, but for the address of counters.
func (b *blob) replace(data []byte, entries, oldEntries int) []byte {
	out := make([]byte, nameLen, replaceLen+len(data))
	copy(out, b.name)
	add := func(v uint32) { out = binary.NativeEndian.AppendUint32(out, v) }
	add(b.validHooks)
	add(uint32(entries))
	add(uint32(len(data)))
	for _, v := range b.hookEntry {
		add(v)
	}
	for _, v := range b.underflow {
		add(v)
	}
	add(uint32(oldEntries))
	out = append(out, make([]byte, replaceLen-len(out))...)
	return append(out, data...)
}

// addCounters is struct xt_counters_info: of what the entries had counted.
func (b *blob) addCounters(old []byte, from []int) []byte {
	out := make([]byte, nameLen+8, nameLen+8+counterLen*len(from))
	copy(out, b.name)
	binary.NativeEndian.PutUint32(out[nameLen:], uint32(len(from)))
	for _, i := range from {
		out = append(out, old[counterLen*i:counterLen*(i+1)]...)
	}
	return out
}

// Options of getsockopt and setsockopt; those of IPv6 have the same numbers.
const (
	optReplace     = 64 // IPT_SO_SET_REPLACE
	optAddCounters = 65
	optGetInfo     = 64
	optGetEntries  = 65
)

// level is the protocol of the options.
func level(f nft.Family) int {
	if f == nft.IPv6 {
		return unix.SOL_IPV6
	}
	return unix.SOL_IP
}
