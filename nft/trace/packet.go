// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"net/netip"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// Outcome says where a packet's way through this host ended.
type Outcome string

// The outcomes.
const (
	// Forwarded: it left through a device, and somebody else made it.
	Forwarded Outcome = "forwarded"
	// Sent: a process of this host made it, and it left through a device.
	Sent Outcome = "sent"
	// Delivered: a process of this host gets it.
	Delivered Outcome = "delivered"
	// Dropped: a rule or a policy let it vanish.
	Dropped Outcome = "dropped"
	// Rejected: a rule refused it, and its sender is told.
	Rejected Outcome = "rejected"
	// Queued: a rule handed it to a process (queue), which decides.
	Queued Outcome = "queued"
	// Lost: no rule ended it, and nobody saw it again.
	Lost Outcome = "lost"
)

// Packet is what became of one packet.
type Packet struct {
	Time     time.Time `json:"time"`
	Protocol string    `json:"protocol"`
	// Source and Destination are as it came, or as the process here sent it.
	Source      netip.AddrPort `json:"source"`
	Destination netip.AddrPort `json:"destination"`
	// In is the device that it came in on, "" if it was made here; Out the one that it
	// left by.
	In  string `json:"in,omitempty"`
	Out string `json:"out,omitempty"`
	// First reports whether it may be the first of a connection.
	First bool `json:"first"`

	Service  *Service  `json:"service,omitempty"`
	Endpoint *Endpoint `json:"endpoint,omitempty"`
	// TranslatedTo is where it was sent instead, by whomever.
	TranslatedTo *netip.AddrPort `json:"translatedTo,omitempty"`
	// Masqueraded reports whether our table replaced its source, and SeenAs what the
	// source was in the end, whoever replaced it.
	Masqueraded bool            `json:"masqueraded"`
	SeenAs      *netip.AddrPort `json:"seenAs,omitempty"`

	Outcome Outcome `json:"outcome"`
	// By is who dropped, refused or queued it.
	By *Place `json:"by,omitempty"`
	// Reason says in words why it ended, if it did not arrive; Hints where to look.
	Reason string   `json:"reason,omitempty"`
	Hints  []string `json:"hints,omitempty"`

	Steps []Step `json:"steps"`

	// Where it was lost: after this hook, and whether the hook had ended.
	lostAt    string
	lostAfter bool
	header    Header // as it was last
}

// Service is the frontend that took the packet.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Port is the name of the Service port, "" if it has none.
	Port string `json:"port,omitempty"`
	// Frontend is the element, as nft prints it, and Set the map that it is in.
	Frontend string `json:"frontend"`
	Set      string `json:"set"`
}

// Endpoint is who gets the packet.
type Endpoint struct {
	Address netip.AddrPort `json:"address"`
	// Slot is the endpoint's number, of Slots; both are 0 if it is in none any more.
	Slot  uint32 `json:"slot"`
	Slots int    `json:"slots"`
	// Affinity reports that the client was remembered.
	Affinity bool `json:"affinity"`
}

// Place is a rule, or a chain's policy if Rule is 0.
type Place struct {
	Table string `json:"table"`
	Chain string `json:"chain"`
	Rule  uint64 `json:"rule,omitempty"`
	// Comment is the rule's.
	Comment string `json:"comment,omitempty"`
	Ours    bool   `json:"ours"`
}

// Step is what one base chain did, or what was seen between two.
type Step struct {
	Hook string `json:"hook"`
	// Table and Chain are "" where no chain did it.
	Table string `json:"table,omitempty"`
	Chain string `json:"chain,omitempty"`
	// Text says it in words. Of a chain of others that had nothing against the
	// packet it is "accept".
	Text string `json:"text"`
}

// Lookup answers questions about the tables that events name. What has gone since
// is not found.
type Lookup interface {
	// Base is the hook of a base chain, and whether it translates (type nat).
	Base(t Table, chain string) (hook string, nat, ok bool)
	// Rule is a rule's comment, and whether it rejects.
	Rule(t Table, chain string, handle uint64) (comment string, rejects, ok bool)
	// Frontend is the element of a map of frontends.
	Frontend(f nft.Family, set nft.Set, key nft.Key) (nft.Element, bool)
	// Slots are the endpoints of a frontend.
	Slots(f nft.Family, frontend nft.Element) []nft.Element
	// Device is the name of a device.
	Device(index uint32) string
}
