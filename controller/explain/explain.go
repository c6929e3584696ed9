// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// Origin is where a packet comes from.
type Origin string

// The origins.
const (
	// Node: a process on this node, in its network namespace.
	Node Origin = "node"
	// Device: another host or a pod, by a network device.
	Device Origin = "device"
	// Outside: somebody of whom nothing is known but that it is no pod of this node.
	Outside Origin = "outside"
)

// Packet is the first packet of a connection.
type Packet struct {
	Origin Origin `json:"origin"`
	// Source is not valid of Outside.
	Source netip.Addr `json:"source,omitzero"`
	// Interface is the device that it comes in by, "" if that is not known.
	Interface   string         `json:"interface,omitempty"`
	Destination netip.AddrPort `json:"destination"`
	Protocol    nft.Proto      `json:"-"`
}

// Table is one family's table as the kernel has it.
type Table interface {
	// Schema is that of its rules.
	Schema() *nft.Schema
	// Get looks an element up as a packet does; where keys are ranges, by one address
	// in them.
	Get(nft.Set, nft.Key) (nft.Element, bool)
	// Slots looks up the endpoints in slots 0 to n-1 of a frontend; one that is not
	// there is not valid.
	Slots(set nft.Set, frontend nft.Key, n uint32) []netip.AddrPort
	// Client looks a client up in a map of session affinity.
	Client(name string, client netip.Addr) (Remembered, bool)
	// Sources lists the ranges that a frontend lets in.
	Sources(frontend nft.Key) []netip.Prefix
}

// Remembered is the endpoint that a client was sent to.
type Remembered struct {
	Endpoint netip.AddrPort `json:"endpoint"`
	// Timeout is how long after its last connection a client is forgotten, Left what
	// is left of it; JSON has them in seconds.
	Timeout time.Duration `json:"-"`
	Left    time.Duration `json:"-"`

	TimeoutSeconds int `json:"timeoutSeconds"`
	LeftSeconds    int `json:"leftSeconds"`
}

// Fate is what becomes of a packet on this host.
type Fate string

// The fates.
const (
	ToEndpoint Fate = "endpoint"   // translated, and sent there
	Rejected   Fate = "rejected"   // refused with ICMP port unreachable
	Dropped    Fate = "dropped"    // without an answer
	ToHost     Fate = "host"       // to a process of this host, as it came
	Forwarded  Fate = "forwarded"  // to where it was sent, as it came
	Unroutable Fate = "unroutable" // the kernel knows no way
)

// Explanation is the walk of a packet.
type Explanation struct {
	Packet Packet `json:"packet"`
	// Protocol is tcp, udp or sctp.
	Protocol string `json:"protocol"`
	// Fates are what may become of the packet, the likeliest first; more than one only
	// in a table that is damaged.
	Fates []Fate `json:"fates"`
	// Why says what decided, in words; "" if Ends say more.
	Why string `json:"reason,omitempty"`
	// Frontend is the element's comment, namespace/name:port, "" if none was met.
	Frontend string `json:"servicePort,omitempty"`
	// Policy is the traffic policy that the packet is led by, "Local" or "Cluster", as
	// far as the table tells.
	Policy string `json:"trafficPolicy,omitempty"`
	// Steps lead to where the packet is translated, or is not.
	Steps []Step `json:"steps"`
	// Ends are the endpoints, by share.
	Ends []End `json:"endpoints,omitempty"`
	// Then are the steps behind, of ends that are alike together.
	Then []Branch `json:"then,omitempty"`
	// Remembered is the client's endpoint.
	Remembered *Remembered `json:"remembered,omitempty"`
	// Affinity: clients are remembered, so that the next connection of this one goes
	// to the same endpoint.
	Affinity bool `json:"sessionAffinity,omitempty"`
	// OnlyFrom are the sources that are let in, where the source is not known.
	OnlyFrom []netip.Prefix `json:"onlyFrom,omitempty"`
}

// Step is a rule that a packet comes to.
type Step struct {
	Hook     string `json:"hook"`
	Priority int32  `json:"priority"`
	Chain    string `json:"chain"`
	Rule     string `json:"rule"` // nft text
	// Hit: the rule matched, or its set has what was asked for.
	Hit bool `json:"hit"`
	// Element is the element that was met, as nft text.
	Element string `json:"element,omitempty"`
	Says    string `json:"says"`
}

// End is an endpoint that the packet may be sent to.
type End struct {
	Endpoint netip.AddrPort `json:"endpoint"`
	Share    float64        `json:"share"`
	// Slot numbers it among the frontend's endpoints; -1 if it was remembered.
	Slot int  `json:"slot"`
	Fate Fate `json:"fate"`
	// Masqueraded: the endpoint sees the node's address instead of the client's.
	Masqueraded bool   `json:"masqueraded"`
	Why         string `json:"reason"`
	// Sees is the source that the endpoint sees; not valid if it is not known.
	Sees netip.Addr `json:"sees,omitzero"`
	// Out is the device that it leaves by; "" if the endpoint is this host itself.
	Out string `json:"interface,omitempty"`
}

// Branch are the steps of ends that are alike.
type Branch struct {
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"` // none: the packet as it came
	Fate      Fate             `json:"fate"`
	Steps     []Step           `json:"steps"`
	Passages  []Passage        `json:"passages"`
}

// Passage is a hook that the packet passes on its way, and how it looks there, for
// those who ask what other tables do with it.
type Passage struct {
	Hook        string         `json:"hook"`
	Source      netip.Addr     `json:"source,omitzero"`
	Destination netip.AddrPort `json:"destination"`
	In          string         `json:"in,omitempty"`
	Out         string         `json:"out,omitempty"`
	Mark        uint32         `json:"mark,omitempty"`
	Translated  bool           `json:"translated,omitempty"`
}
