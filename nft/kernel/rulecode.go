// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/wire"
)

// ruleCode is a rule as the kernel has it. It is read for what it tells of options
// alone; whether it says nothing else its hash tells.
type ruleCode []expression

type expression struct {
	name string
	data []byte // its attributes
}

// rule returns the first rule of a chain that tells of options, nil if there is none.
func (v *inventory) rule(chain string) ruleCode {
	if len(v.told[chain]) == 0 {
		return nil
	}
	return v.told[chain][0]
}

// first is the name of the first expression.
func (r ruleCode) first() string {
	if len(r) == 0 {
		return ""
	}
	return r[0].name
}

// find returns the attributes of the first expression of a name.
func (r ruleCode) find(name string) []byte {
	for _, e := range r {
		if e.name == name {
			return e.data
		}
	}
	return nil
}

func (r ruleCode) has(name string) bool {
	return slices.ContainsFunc(r, func(e expression) bool { return e.name == name })
}

// data is a value in the first expression of a name.
func (r ruleCode) data(name string, attr uint16) []byte {
	return wire.First(wire.First(r.find(name), attr), unix.NFTA_DATA_VALUE)
}

// localPods reads the beginning of a rule for all but local pods: a comparison of
// the source address or of the interface with what is not theirs.
func (r ruleCode) localPods(f nft.Family) (pods nft.LocalPods) {
	if len(r) == 0 || !r.has("cmp") || u32(wire.First(r.find("cmp"), unix.NFTA_CMP_OP)) != unix.NFT_CMP_NEQ {
		return pods
	}
	value := r.data("cmp", unix.NFTA_CMP_DATA)
	switch r.first() {
	case "meta":
		// iifname != "veth*"; without the asterisk the whole name is compared.
		pods.Interface = cstring(value)
		if len(value) < unix.IFNAMSIZ {
			pods.Interface += "*"
		}
	case "payload":
		// ip saddr != 10.128.0.0/16: whole bytes, or the address under a mask.
		length := 8 * len(value)
		if mask := r.data("bitwise", unix.NFTA_BITWISE_MASK); mask != nil {
			length = 0
			for _, b := range mask {
				length += bits.OnesCount8(b)
			}
		}
		pods.Prefix = prefixOf(f, value, length)
	}
	return pods
}

// prefixOf makes a prefix of the bytes that are compared; the zero prefix if there are
// too many.
func prefixOf(f nft.Family, b []byte, length int) netip.Prefix {
	if f == nft.IPv4 && len(b) <= 4 {
		var four [4]byte
		copy(four[:], b)
		return netip.PrefixFrom(netip.AddrFrom4(four), length)
	}
	var sixteen [16]byte
	if f == nft.IPv4 || len(b) > len(sixteen) {
		return netip.Prefix{}
	}
	copy(sixteen[:], b)
	return netip.PrefixFrom(netip.AddrFrom16(sixteen), length)
}

// lowestBit is the number of the one bit that is set in a word of the host's order.
func lowestBit(word []byte) uint8 {
	return uint8(bits.TrailingZeros32(binary.NativeEndian.Uint32(word)) % 32)
}
