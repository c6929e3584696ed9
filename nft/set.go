// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"slices"
	"strings"
)

// Set names one of the table's sets and maps. What each of them means is in the
// package documentation.
type Set uint8

// The sets and maps of a table. Their order is the order in which a transaction
// adds to them: data before the verdicts that lead to it.
const (
	NodeIPs Set = iota
	LoopBack
	Endpoints
	NodePortEndpoints
	LocalEndpoints
	LocalNodePortEndpoints
	LearnEndpoints
	LearnLocalEndpoints
	SourceRanges
	Firewall
	ClusterIPs
	ServiceCIDRs
	NoEndpoints
	NoEndpointsNodePorts
	LearnNodePorts
	LearnServices
	AffinityLocalNodePorts
	AffinityLocalServices
	AffinityNodePorts
	AffinityServices
	LocalNodePorts
	LocalServices
	NodePorts
	Services
	numSets
)

// Sets lists every set, in the order in which a transaction adds to them.
var Sets = func() (all [numSets]Set) {
	for i := range all {
		all[i] = Set(i)
	}
	return all
}()

// field is one part of a set's key or data.
type field uint8

const (
	fieldDaddr field = iota
	fieldSaddr
	fieldProto
	fieldPort
	fieldSlot
	fieldDaddrRange
	fieldSaddrRange
)

// ranged reports whether the field is a range of addresses, a Key's Range.
func (fl field) ranged() bool { return fl == fieldDaddrRange || fl == fieldSaddrRange }

// layout describes one set: the only place that knows what its elements look
// like. Declaration, text, encoding and decoding all follow it.
type layout struct {
	name    string
	key     []field
	data    []field // of a data map
	verdict bool    // a verdict map
	counted bool    // a counter per element, if Options.Counters
	needs   Features
}

// ranged reports whether the set's elements are ranges; the range is the last
// field of the key.
func (l layout) ranged() bool { return l.key[len(l.key)-1].ranged() }

var (
	frontendKey = []field{fieldDaddr, fieldProto, fieldPort}
	nodePortKey = []field{fieldProto, fieldPort}
	endpoint    = []field{fieldDaddr, fieldPort}

	slotKey         = append(slices.Clone(frontendKey), fieldSlot)
	nodePortSlotKey = append(slices.Clone(nodePortKey), fieldSlot)
	rangeKey        = append(slices.Clone(frontendKey), fieldSaddrRange)
)

var layouts = [numSets]layout{
	Services:               {name: "KUBE-SERVICES", key: frontendKey, verdict: true, counted: true},
	NodePorts:              {name: "KUBE-NODEPORTS", key: nodePortKey, verdict: true, counted: true},
	Endpoints:              {name: "KUBE-SEP", key: slotKey, data: endpoint},
	NodePortEndpoints:      {name: "KUBE-SEP-NODEPORTS", key: nodePortSlotKey, data: endpoint},
	NoEndpoints:            {name: "KUBE-NO-ENDPOINTS", key: frontendKey, verdict: true},
	NoEndpointsNodePorts:   {name: "KUBE-NO-ENDPOINTS-NODEPORTS", key: nodePortKey, verdict: true},
	ClusterIPs:             {name: "KUBE-CLUSTER-IP", key: []field{fieldDaddr}},
	NodeIPs:                {name: "KUBE-NODE-IP", key: []field{fieldDaddr}},
	LoopBack:               {name: "KUBE-LOOP-BACK", key: []field{fieldSaddr, fieldDaddr}, needs: Hairpins},
	LocalServices:          {name: "KUBE-XLB", key: frontendKey, verdict: true, counted: true, needs: LocalPolicy},
	LocalNodePorts:         {name: "KUBE-XLB-NODEPORTS", key: nodePortKey, verdict: true, counted: true, needs: LocalPolicy},
	LocalEndpoints:         {name: "KUBE-SEP-XLB", key: slotKey, data: endpoint, needs: LocalPolicy},
	LocalNodePortEndpoints: {name: "KUBE-SEP-XLB-NODEPORTS", key: nodePortSlotKey, data: endpoint, needs: LocalPolicy},
	AffinityServices:       {name: "KUBE-AFFINITY-SERVICES", key: frontendKey, verdict: true, needs: ClientAffinity},
	AffinityNodePorts:      {name: "KUBE-AFFINITY-NODEPORTS", key: nodePortKey, verdict: true, needs: ClientAffinity | NodePortAffinity},
	AffinityLocalServices:  {name: "KUBE-AFFINITY-XLB", key: frontendKey, verdict: true, needs: ClientAffinity | LocalPolicy | LocalAffinity},
	AffinityLocalNodePorts: {name: "KUBE-AFFINITY-XLB-NODEPORTS", key: nodePortKey, verdict: true, needs: ClientAffinity | LocalPolicy | LocalAffinity},
	LearnServices:          {name: "KUBE-LEARN", key: frontendKey, verdict: true, needs: ClientAffinity},
	LearnNodePorts:         {name: "KUBE-LEARN-NODEPORTS", key: nodePortKey, verdict: true, needs: ClientAffinity | NodePortAffinity},
	LearnEndpoints:         {name: "KUBE-LEARN-SEP", key: frontendKey, needs: ClientAffinity},
	LearnLocalEndpoints:    {name: "KUBE-LEARN-SEP-XLB", key: frontendKey, needs: ClientAffinity | LocalAffinity},
	Firewall:               {name: "KUBE-LOAD-BALANCER-FW", key: frontendKey, needs: SourceFilter},
	SourceRanges:           {name: "KUBE-LOAD-BALANCER-SOURCE-CIDR", key: rangeKey, needs: SourceFilter},
	ServiceCIDRs:           {name: "KUBE-SERVICE-CIDR", key: []field{fieldDaddrRange}, needs: ServiceRanges},
}

// EndpointsOf names the data map that holds the endpoints of the frontends in a
// verdict map.
func (s Set) EndpointsOf() (Set, bool) {
	switch s {
	case Services:
		return Endpoints, true
	case NodePorts:
		return NodePortEndpoints, true
	case LocalServices:
		return LocalEndpoints, true
	case LocalNodePorts:
		return LocalNodePortEndpoints, true
	}
	return 0, false
}

// FallbackOf names the verdict map that says how a frontend in a verdict map is
// balanced for clients that have no affinity yet.
func (s Set) FallbackOf() Set {
	switch s {
	case Services:
		return AffinityServices
	case NodePorts:
		return AffinityNodePorts
	case LocalServices:
		return AffinityLocalServices
	}
	return AffinityLocalNodePorts
}

// String returns the set's name in the kernel.
func (s Set) String() string {
	if s < numSets {
		return layouts[s].name
	}
	return fmt.Sprintf("set(%d)", uint8(s))
}

// Verdict reports whether the set's elements hold verdicts. Touching one makes
// the kernel validate the table's chains again, in proportion to the elements of
// all verdict maps (nft_table_validate, net/netfilter/nf_tables_api.c).
func (s Set) Verdict() bool { return layouts[s].verdict }

// HoldsEndpoints reports whether the set is a data map of endpoints.
func (s Set) HoldsEndpoints() bool { return layouts[s].data != nil }

// Map reports whether the set maps its keys to something.
func (s Set) Map() bool { return layouts[s].verdict || layouts[s].data != nil }

// Counted reports whether the set's elements may carry counters.
func (s Set) Counted() bool { return layouts[s].counted }

// Ranged reports whether the set's elements are ranges of addresses.
func (s Set) Ranged() bool { return layouts[s].ranged() }

// Concatenated reports whether the set's keys have more than one field.
func (s Set) Concatenated() bool { return len(layouts[s].key) > 1 }

// FieldLens returns the length in bytes of each field of the key.
func (s Set) FieldLens(f Family) []uint32 {
	var lens []uint32
	for _, fl := range layouts[s].key {
		lens = append(lens, fl.size(f))
	}
	return lens
}

// ParseSet finds a set by its name in the kernel.
func ParseSet(name string) (Set, bool) {
	for s, l := range layouts {
		if l.name == name {
			return Set(s), true
		}
	}
	return 0, false
}

// slotModulus stands in the type of a slot: nft needs a numgen expression there
// to know what the field is. It bounds nothing.
const slotModulus = 65536

// typeof returns the set's type as nft text, after the word typeof.
func (s Set) typeof(f Family) string {
	l := layouts[s]
	t := fieldsText(f, l.key)
	switch {
	case l.verdict:
		t += " : verdict"
	case l.data != nil:
		t += " : " + fieldsText(f, l.data)
	}
	return t
}

func fieldsText(f Family, fields []field) string {
	words := make([]string, len(fields))
	for i, fl := range fields {
		switch fl {
		case fieldDaddr, fieldDaddrRange:
			words[i] = f.String() + " daddr"
		case fieldSaddr, fieldSaddrRange:
			words[i] = f.String() + " saddr"
		case fieldProto:
			words[i] = "meta l4proto"
		case fieldPort:
			words[i] = "th dport"
		case fieldSlot:
			words[i] = fmt.Sprintf("numgen random mod %d", slotModulus)
		}
	}
	return strings.Join(words, " . ")
}

// Type is the wire description of a set: what a NFT_MSG_NEWSET message says.
type Type struct {
	KeyType, KeyLen   uint32 // nft's type number (display only) and length in bytes
	DataType, DataLen uint32 // zero for sets
	UserData          []byte // nft's typeof description, so that nft can print the set
}

// nft's data type numbers (nftables, include/datatype.h), six bits each in a
// concatenation, and the pseudo type of verdicts.
const (
	typeInteger = 4
	typeIPv4    = 7
	typeIPv6    = 8
	typeProto   = 12
	typePort    = 13
	typeVerdict = 0xffffff00

	verdictLen = 16
)

// Type returns the wire description of the set in a family.
func (s Set) Type(f Family) Type {
	l := layouts[s]
	var t Type
	t.KeyType, t.KeyLen = fieldsType(f, l.key)
	switch {
	case l.verdict:
		t.DataType, t.DataLen = typeVerdict, verdictLen
	case l.data != nil:
		t.DataType, t.DataLen = fieldsType(f, l.data)
	}
	t.UserData = typeofUserData(f, l)
	return t
}

func fieldsType(f Family, fields []field) (number, length uint32) {
	for _, fl := range fields {
		n := uint32(typeInteger)
		switch {
		case fl == fieldProto:
			n = typeProto
		case fl == fieldPort:
			n = typePort
		case fl != fieldSlot && f == IPv4:
			n = typeIPv4
		case fl != fieldSlot:
			n = typeIPv6
		}
		number = number<<6 | n
		length += registers(fl.size(f)) * 4
	}
	return number, length
}

// size is the field's length in bytes.
func (fl field) size(f Family) uint32 {
	switch fl {
	case fieldProto:
		return 1
	case fieldPort:
		return 2
	case fieldSlot:
		return 4
	}
	return uint32(f.addrLen())
}

// registers is how many of the kernel's registers as many bytes take.
func registers(size uint32) uint32 { return (size + 3) / 4 }
