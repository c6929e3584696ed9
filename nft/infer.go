// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft/wire"
)

// RawRule are the expressions of a rule as the kernel tells them.
type RawRule []RawExpr

// RawExpr is an expression: its name, and the attributes that are its data.
type RawExpr struct {
	Name string
	Data []byte
}

// InferOptions finds the options that the rules of a table were made with, which are
// given by their chain. What no rule says stays out of them: who the local pods are
// if everybody is masqueraded. Only whether frontends have counters is not in them, that is for
// the caller to see. The rules may have been changed by others: whoever depends on the
// options compares the table with the schema that they make.
func InferOptions(f Family, features Features, rules map[string][]RawRule) (Options, error) {
	o := Options{}
	mark, ok := markOf(rules[chainMarkMasq])
	if !ok {
		return o, fmt.Errorf("%w: chain %s sets no bit of the mark", ErrSchema, chainMarkMasq)
	}
	o.MasqueradeBit = mark
	// ip daddr @KUBE-NODE-IP jump KUBE-NODEPORTS, or fib daddr type local …
	for _, r := range rules[chainServices] {
		o.AllNodePorts = o.AllNodePorts || r.has("fib")
	}
	// ip saddr != 10.128.0.0/16 jump KUBE-MARK-MASQ
	if way := rules[Chain{Kind: Service, N: 1}.String()]; len(way) > 0 && way[0].has("immediate") {
		o.LocalPods = podsOf(f, way[0])
		o.MasqueradeAll = !o.LocalPods.Known()
	}
	for name, all := range rules {
		// ip saddr != 10.128.0.0/16 jump KUBE-XLB, or in the ways of local pods jump KUBE-MARK-MASQ
		c, _ := ParseChain(name)
		says := c.Kind == Shortcut || c.Kind == NodePortShortcut || name == "PREROUTING" && features&LocalPolicy != 0
		if says && len(all) > 0 {
			o.LocalPods = podsOf(f, all[0])
		}
	}
	return o, nil
}

func (r RawRule) find(name string) []byte {
	for _, e := range r {
		if e.Name == name {
			return e.Data
		}
	}
	return nil
}

func (r RawRule) has(name string) bool { return r.find(name) != nil }

// markOf finds the bit that setMark sets.
func markOf(rules []RawRule) (bit uint8, ok bool) {
	if len(rules) == 0 {
		return 0, false
	}
	xor := value(wire.First(rules[0].find("bitwise"), unix.NFTA_BITWISE_XOR))
	if len(xor) != 4 {
		return 0, false
	}
	mark := binary.NativeEndian.Uint32(xor)
	return uint8(bits.TrailingZeros32(mark)), bits.OnesCount32(mark) == 1
}

// podsOf reads what source and notFromInterface wrote.
func podsOf(f Family, r RawRule) LocalPods {
	data := value(wire.First(r.find("cmp"), unix.NFTA_CMP_DATA))
	switch {
	case r.has("meta"):
		// A whole name is compared with the zeros behind it, the beginning of one without.
		name := strings.TrimRight(string(data), "\x00")
		if len(data) < unix.IFNAMSIZ {
			name += "*"
		}
		return LocalPods{Interface: name}
	case r.has("payload") && len(data) <= f.addrLen():
		length := len(data) * 8
		if mask := value(wire.First(r.find("bitwise"), unix.NFTA_BITWISE_MASK)); mask != nil {
			length = 0
			for _, b := range mask {
				length += bits.OnesCount8(b)
			}
		}
		addr := make([]byte, f.addrLen())
		copy(addr, data)
		return LocalPods{Prefix: netip.PrefixFrom(f.addrFromBytes(addr), length)}
	}
	return LocalPods{}
}

func value(data []byte) []byte { return wire.First(data, unix.NFTA_DATA_VALUE) }
