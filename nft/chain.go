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
	// Shortcut is the way of local pods and of the node itself to an external IP
	// or load balancer IP under the external traffic policy Local: to all
	// endpoints, the pods under their own address.
	Shortcut
	// NodePortShortcut is Shortcut for the node's own addresses.
	NodePortShortcut
	// Local balances over N endpoints on this node, for everybody else under that
	// policy: clients keep their address.
	Local
	// LocalNodePort is Local for the node's own addresses.
	LocalNodePort
	// Drop lets a packet vanish: there are endpoints, but none on this node. It is
	// a verdict without a chain and has no N.
	Drop
	// Reject refuses, with ICMP port unreachable. It has no N.
	Reject
	// AffinityService sends clients of a Service port back to their endpoint, as
	// Service does with new ones, and is jumped to: clients without an endpoint
	// return. Chains of this kind and the following belong to a Port; they have no N.
	AffinityService
	// AffinityServiceLocal is AffinityService for endpoints on this node.
	AffinityServiceLocal
	// AffinityExternal masquerades as External does.
	AffinityExternal
	// AffinityShortcut masquerades as Shortcut does.
	AffinityShortcut
	// AffinityLocal keeps the client's address, for endpoints on this node.
	AffinityLocal
	// Learn notes which endpoint a client was sent to.
	Learn
)

var chainPrefix = [...]string{
	Service:          "KUBE-SVC-",
	External:         "KUBE-EXT-",
	NodePort:         "KUBE-NODEPORT-",
	Shortcut:         "KUBE-XLB-SVC-",
	NodePortShortcut: "KUBE-XLB-NODEPORT-SVC-",
	Local:            "KUBE-XLB-",
	LocalNodePort:    "KUBE-XLB-NODEPORT-",
	Drop:             "drop",
	Reject:           "KUBE-REJECT",

	AffinityService:      "KUBE-AFFINITY-",
	AffinityServiceLocal: "KUBE-AFFINITY-SVL-",
	AffinityExternal:     "KUBE-AFFINITY-EXT-",
	AffinityShortcut:     "KUBE-AFFINITY-XLB-SVC-",
	AffinityLocal:        "KUBE-AFFINITY-XLB-",
	Learn:                "KUBE-LEARN-",
}

// balancing lists the kinds that have an N.
var balancing = [...]ChainKind{Service, External, NodePort, Shortcut, NodePortShortcut, Local, LocalNodePort}

// Chain is a chain that a verdict element leads to. Apart from Reject there is
// one for each number of endpoints in use, because numgen's modulus is a
// constant of its rule; none belongs to a Service but those of session affinity.
type Chain struct {
	Kind ChainKind
	// N is the modulus: slots 0 to N-1 are drawn. See Modulus.
	N uint32
	// Port is whose chain it is, if it is a Service port's; see Affinity.
	Port Port
}

// exactModuli is up to how many endpoints the modulus is always their number.
const exactModuli = 4

// Modulus returns from how many slots to draw for n endpoints: as many up to 4;
// then the next even number, and above 64 the next of 16 steps to each power of
// two. So every other endpoint that comes or goes, and most of them in a crowded
// Service, changes no verdict, and there are few chains. The slots between are
// empty: of 5 endpoints one draw in 6 hits one, of 9 one in 10, above 64 less than
// one in 17. The chain then draws again.
func Modulus(n int) uint32 {
	if n <= exactModuli {
		return uint32(n)
	}
	step := uint32(1) << max(1, bits.Len(uint(n-1))-5)
	return (uint32(n) + step - 1) / step * step
}

// Balances reports whether the chain balances over N endpoints, and is none that
// is always there. It exists from the first time that an element leads to it.
func (c Chain) Balances() bool {
	return c.Kind != 0 && c.Kind < Drop && c != Chain{Kind: Service, N: 1}
}

// Needs returns the features without which the chain cannot be.
func (c Chain) Needs() Features {
	if c.Kind == Local || c.Kind == LocalNodePort {
		return LocalPolicy
	}
	return 0
}

// String returns the chain's name in the kernel.
func (c Chain) String() string {
	switch {
	case c.Kind == 0 || int(c.Kind) >= len(chainPrefix):
		return fmt.Sprintf("chain(%d,%d)", c.Kind, c.N)
	case c.Kind == Reject, c.Kind == Drop:
		return chainPrefix[c.Kind]
	case c.Kind > Reject:
		return chainPrefix[c.Kind] + c.Port.String()
	}
	return chainPrefix[c.Kind] + strconv.FormatUint(uint64(c.N), 10)
}

func (c Chain) verdict() string {
	switch {
	case c.Kind == Drop:
		return "drop"
	case c.Returns():
		return "jump " + c.String()
	}
	return "goto " + c.String()
}

// Returns reports whether packets may come back from the chain, so that it is
// jumped to.
func (c Chain) Returns() bool { return c.Kind > Reject && c.Kind < Learn }

// ParseChain finds a chain by its name in the kernel.
func ParseChain(name string) (Chain, bool) {
	if name == chainPrefix[Reject] {
		return Chain{Kind: Reject}, true
	}
	if c, ok := affinityName(name); ok {
		return c, true
	}
	for _, kind := range balancing {
		digits, ok := strings.CutPrefix(name, chainPrefix[kind])
		if !ok || strings.HasPrefix(digits, "0") {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 32)
		if err != nil {
			continue
		}
		return Chain{Kind: kind, N: uint32(n)}, true
	}
	return Chain{}, false
}
