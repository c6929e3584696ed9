// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
)

// TableName is the name of our table in each family.
const TableName = "kube-nft"

// Version is the version of the schema. It stands in the table's comment and
// changes when tables of the last version could not be adopted.
const Version = 1

// Comment marks a table as ours.
func Comment(version int) string { return fmt.Sprintf("kube-nft schema %d", version) }

// DefaultMasqueradeBit is kube-proxy's default (KubeProxyConfiguration,
// masqueradeBit).
const DefaultMasqueradeBit = 14

// Options are the parts of the configuration that the constant rules depend on.
// A change of them is a change of the schema: the table is replaced whole.
type Options struct {
	// MasqueradeBit is the bit of the packet mark that asks for masquerading,
	// 0 to 31. All other bits belong to others.
	MasqueradeBit uint8
	// MasqueradeAll masquerades every connection to a ClusterIP.
	MasqueradeAll bool
	// LocalPods says who reaches ClusterIPs under their own address; everybody
	// else is masqueraded. If it says nothing, nobody is.
	LocalPods LocalPods
	// AllNodePorts serves node ports on every local address but loopback;
	// otherwise the set KUBE-NODE-IP says on which.
	AllNodePorts bool
	// Counters gives each frontend a counter of new connections.
	Counters bool
}

// LocalPods says how packets of this node's pods are known: by their source
// address, or by the interface that they come in on (KubeProxyConfiguration,
// detectLocalMode). The zero value knows nothing of pods.
type LocalPods struct {
	Prefix netip.Prefix
	// Interface is a name, or with an asterisk at its end the beginning of names.
	Interface string
}

// Known reports whether anything is known of pods.
func (p LocalPods) Known() bool { return p.Prefix.IsValid() || p.Interface != "" }

// Features are the parts of a table that packets pay for: each exists only while
// a Service needs it.
type Features uint8

// The features.
const (
	// LocalPolicy: a Service has the external traffic policy Local.
	LocalPolicy Features = 1 << iota
	// ClientAffinity: a Service has session affinity.
	ClientAffinity
	// SourceFilter: a Service has load balancer source ranges.
	SourceFilter
	// ServiceRanges: it is known which addresses belong to Services.
	ServiceRanges
	// Hairpins: a Service has an endpoint on this node, which may reach itself.
	Hairpins
	// LocalAffinity: a Service with session affinity has a policy Local, and an
	// endpoint on this node.
	LocalAffinity
	// NodePortAffinity: a Service with session affinity has a node port.
	NodePortAffinity

	// AllFeatures are all of them.
	AllFeatures = 1<<iota - 1
)

// Need returns the features without which a table cannot hold as many elements.
func Need(counts Counts) (f Features) {
	for set, n := range counts {
		if n > 0 {
			f |= layouts[set].needs
		}
	}
	return f
}

// Hook says where a base chain meets packets.
type Hook struct {
	Type     string // nat or filter
	Hook     string // prerouting, input, forward, output or postrouting
	Number   uint32 // NF_INET_* of the hook (linux/netfilter.h)
	Priority int32  // among the chains of the hook, lowest first
	text     string // the priority as nft prints it
}

// RuleChain is a chain and its rules. Base is nil for chains that others lead to.
type RuleChain struct {
	Name  string
	Base  *Hook
	Rules []Rule
}

// Sizes says how many elements each set may hold. A set without a size would be
// a resizable hash, whose elements the kernel takes five times as long to walk
// whenever it validates a table, and it does so for each change of a verdict
// (nft_set_hash.c, nft_rhash_walk against nft_hash_walk).
type Sizes [numSets]uint32

// minSize is the smallest size of a set.
const minSize = 768

// SizesFor returns sizes that leave room to grow for as many elements.
func SizesFor(counts Counts) Sizes {
	var sizes Sizes
	for set, n := range counts {
		// The kernel makes the next power of two above four thirds of the size
		// buckets: three quarters of a power of two wastes none.
		size := uint32(minSize)
		for int(size) < n+n/4 {
			size *= 2
		}
		sizes[set] = size
	}
	return sizes
}

// Hold reports whether sets of these sizes have room for as many elements.
func (s Sizes) Hold(counts Counts) bool {
	for set, n := range counts {
		if n > int(s[set]) {
			return false
		}
	}
	return true
}

// Needs returns the features without which a table has no such set.
func (s Set) Needs() Features { return layouts[s].needs }

// Schema is everything in a table that does not depend on Services: which sets
// there are, and the constant rules.
type Schema struct {
	Family   Family
	Options  Options
	Features Features
	// Sizes of the sets. They are no part of the table's identity: a table is
	// adopted as long as it is large enough.
	Sizes Sizes
	// Chains in the order in which they are made: a chain before those that lead
	// to it.
	Chains []RuleChain
}

// NewSchema builds the schema of a family's table.
func NewSchema(f Family, o Options) *Schema {
	s := &Schema{Family: f, Options: o, Sizes: SizesFor(Counts{})}
	s.Chains = s.chains()
	return s
}

// With returns the schema of the same table with other features.
func (s *Schema) With(f Features) *Schema {
	next := *s
	next.Features = f
	next.Chains = next.chains()
	return &next
}

// Sets lists the sets that the table has, in the order in which a transaction adds
// to them.
func (s *Schema) Sets() []Set {
	var all []Set
	for _, set := range Sets {
		if s.hasSet(set) {
			all = append(all, set)
		}
	}
	return all
}

// hasSet reports whether the table has a set.
func (s *Schema) hasSet(set Set) bool { return layouts[set].needs&^s.Features == 0 }

// Dynamic returns a chain that exists only while elements lead to it.
func (s *Schema) Dynamic(c Chain) RuleChain {
	return RuleChain{Name: c.String(), Rules: s.balance(c)}
}

// Counted reports whether the elements of the set carry counters in this schema.
func (s *Schema) Counted(set Set) bool { return s.Options.Counters && layouts[set].counted }

// Hash is a short digest of a rule: its chain's name and its text. The kernel
// keeps it in the rule's user data, so that a table read back is recognised.
func (s *Schema) Hash(chain string, r Rule) [8]byte {
	sum := sha256.Sum256([]byte(s.Family.String() + "\x00" + chain + "\x00" + r.Text))
	return [8]byte(sum[:8])
}
