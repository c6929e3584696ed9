// SPDX-License-Identifier: Apache-2.0

package trace

// Gap is where a packet was lost.
type Gap uint8

// The gaps.
const (
	// InHook: between two chains of one hook. What is there is no rule of nftables.
	InHook Gap = iota + 1
	// Routing: between prerouting and the next hook.
	Routing
	// Forwarding: between forward and postrouting.
	Forwarding
	// Rerouting: between output and postrouting, after the destination changed.
	Rerouting
	// Away: anywhere else.
	Away
)

// Gap returns where a lost packet was lost, after which hook, and what its headers
// said there.
func (p *Packet) Gap() (gap Gap, hook string, h Header) {
	switch {
	case p.Outcome != Lost:
		return 0, "", p.header
	case !p.lostAfter:
		gap = InHook
	case p.lostAt == "prerouting":
		gap = Routing
	case p.lostAt == "forward":
		gap = Forwarding
	case p.lostAt == "output":
		gap = Rerouting
	default:
		gap = Away
	}
	return gap, p.lostAt, p.header
}

// lost says what there is where the packet was lost.
func (p *Packet) lost() string {
	gap, hook, _ := p.Gap()
	switch gap {
	case InHook:
		return "vanished within hook " + hook + ", and no rule of nftables says that it did it: conntrack, legacy iptables, IPVS or another module is there"
	case Routing:
		return "vanished after hook prerouting, in routing: no rule dropped it"
	case Forwarding:
		return "vanished between the hooks forward and postrouting: no rule dropped it; it may be too long for the next link, or for IPsec to decide"
	case Rerouting:
		return "vanished after hook output, when it was routed again: no rule dropped it"
	}
	return "vanished after hook " + hook + ": no rule dropped it"
}
