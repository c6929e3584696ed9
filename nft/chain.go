// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// ChainKind says what a chain does that a verdict element leads to.
type ChainKind uint8

// The kinds of chains that verdict elements lead to.
const (
	_ ChainKind = iota
	// Service balances over N endpoints for a ClusterIP: who is not a local pod
	// is masqueraded, as the schema's options say.
	Service
	// External balances over N endpoints for an external IP or a load balancer
	// IP under the external traffic policy Cluster: everybody is masqueraded.
	External
	// NodePort is External for the node's own addresses.
	NodePort
	// Reject refuses, with ICMP port unreachable. It has no N.
	Reject
)

var chainPrefix = [...]string{
	Service:  "KUBE-SVC-",
	External: "KUBE-EXT-",
	NodePort: "KUBE-NODEPORT-",
	Reject:   "KUBE-REJECT",
}

// Chain is a chain that a verdict element leads to. Apart from Reject there is
// one for each number of endpoints in use, because numgen's modulus is a
// constant of its rule; none belongs to a Service.
type Chain struct {
	Kind ChainKind
	// N is the modulus: slots 0 to N-1 are drawn. See Modulus.
	N uint32
}

// exactModuli is up to how many endpoints the modulus is their number.
const exactModuli = 64

// Modulus returns from how many slots to draw for n endpoints: as many up to 64;
// above, the next of 16 steps to each power of two, so that a crowded Service
// needs no chain for every number of endpoints that it ever has, and mostly no
// new verdict when one comes or goes. At most one draw in 17 hits an empty slot;
// the chain then draws again.
func Modulus(n int) uint32 {
	if n <= exactModuli {
		return uint32(n)
	}
	step := uint32(1) << (bits.Len(uint(n-1)) - 5)
	return (uint32(n) + step - 1) / step * step
}

// Constant reports whether the chain is part of the schema, so that it is there
// whether or not an element leads to it.
func (c Chain) Constant() bool {
	return c.Kind == Reject || c == Chain{Service, 1}
}

// String returns the chain's name in the kernel.
func (c Chain) String() string {
	switch {
	case c.Kind == 0 || int(c.Kind) >= len(chainPrefix):
		return fmt.Sprintf("chain(%d,%d)", c.Kind, c.N)
	case c.Kind == Reject:
		return chainPrefix[Reject]
	}
	return chainPrefix[c.Kind] + strconv.FormatUint(uint64(c.N), 10)
}

func (c Chain) verdict() string { return "goto " + c.String() }

// ParseChain finds a chain by its name in the kernel.
func ParseChain(name string) (Chain, bool) {
	if name == chainPrefix[Reject] {
		return Chain{Kind: Reject}, true
	}
	for _, kind := range [...]ChainKind{Service, External, NodePort} {
		digits, ok := strings.CutPrefix(name, chainPrefix[kind])
		if !ok || strings.HasPrefix(digits, "0") {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			continue
		}
		return Chain{kind, uint32(n)}, true
	}
	return Chain{}, false
}
