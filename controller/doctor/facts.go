// SPDX-License-Identifier: Apache-2.0

// Package doctor says what on a host keeps Services from working, or will. It is
// pure: facts go in, findings come out, and whoever gathers facts is elsewhere.
//
// A finding is what is known for sure, or is marked as likely. Its mend is a command
// wherever one does it. What could not be looked at is a gap, which is told beside
// the findings and is none.
package doctor

import (
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/ruleset"
)

// Facts are what was found on a host. Parts that could not be gathered are left
// out, and told in Gaps.
type Facts struct {
	// Families are those that the kernel has, each with what is known of it.
	Families []Family
	Kernel   Kernel
	// Tables are all of the network namespace, ours too, those of iptables-legacy last.
	Tables  []*ruleset.Table
	Running Running
	// Proxies are kube-proxies that run in the network namespace.
	Proxies []Process
	// Leftovers are what kube-proxy has left in the kernel, a line each, and
	// LeftoverMode the mode that it was in. Those are inert that do nothing to any
	// packet: chains without rules.
	Leftovers      []string
	LeftoverMode   string
	LeftoversInert bool
	// Params are kernel parameters by their path below /proc/sys.
	Params map[string]string
	// ReversePathDrops is how many packets rp_filter has dropped.
	ReversePathDrops uint64
	Interfaces       []Interface
	// Routes says where packets to an endpoint go, and Uplinks by which interface a
	// family's default route leads out, from where clients come.
	Routes  map[netip.Addr]Route
	Uplinks map[nft.Family]string
	// Listeners are sockets on ports that frontends have, too.
	Listeners []Listener
	MarkRules []MarkRule
	Gaps      []Gap
}

// Gap is something that was not looked at.
type Gap struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Kernel is what the kernel can do.
type Kernel struct {
	Release string
	// Lacks says what it lacks for our tables, "" if nothing; it names modules and
	// options of the kernel's configuration.
	Lacks string
}

// Family is what is known of an IP family and our table in it.
type Family struct {
	nft.Family
	State State
	// Detail says in words what State does in one.
	Detail string
	// Of a table that could be read:
	MasqueradeBit uint8
	Counts        nft.Counts // -1 where the kernel does not tell
	Sizes         nft.Sizes
	// Clients is how many clients each Service port with affinity remembers.
	Clients map[nft.Port]int
	// Frontends are all that the table has; node ports have no address.
	Frontends  []Frontend
	NodeAddrs  []netip.Addr
	ClusterIPs []netip.Addr
	// Endpoints are those of some Services, and LocalEndpoints all that are pods on
	// this node.
	Endpoints      []Endpoint
	LocalEndpoints []netip.Addr
}

// State is what our table of a family is like.
type State uint8

// The states.
const (
	// Unknown: it could not be read.
	Unknown State = iota
	Healthy
	Missing
	Foreign
	OtherSchema
	Altered
	Dormant
)

// Frontend is what clients address.
type Frontend struct {
	Addr    netip.Addr // not valid for a node port
	Proto   nft.Proto
	Port    uint16
	Service string
}

// Endpoint is where a frontend leads.
type Endpoint struct {
	To      netip.AddrPort
	Proto   nft.Proto
	Service string
}

// Running is the kube-nft that holds the control socket of the namespace.
type Running struct {
	State RunningState
	// Detail says who it is, or who else has the socket.
	Detail string
	// Programmed says that its tables are what it wants, as far as it knows.
	Programmed bool
}

// RunningState is whether kube-nft runs.
type RunningState uint8

// The states.
const (
	RunningUnknown RunningState = iota
	Runs
	NotRunning
	Stranger // somebody else has the name of its socket
)

// Process is a process of the host.
type Process struct {
	PID  int
	Name string
	// Sure: it is known to be in this network namespace.
	Sure bool
}

// Interface is a network interface.
type Interface struct {
	Name     string
	Prefixes []netip.Prefix
	// Bridge says that it is a bridge.
	Bridge bool
}

// Route is where packets to an address go.
type Route struct {
	Out   string
	Local bool
}

// Listener is a socket that waits for packets.
type Listener struct {
	Addr    netip.Addr
	Proto   nft.Proto
	Port    uint16
	Process string // "" if that is not known
}

// MarkRule is a rule of policy routing that asks for a packet mark.
type MarkRule struct {
	Family     nft.Family
	Priority   uint32
	Mark, Mask uint32
}

// Sample is how many frontends of a kind are compared with the rules of others.
const Sample = 128

// Compared are the frontends of a family that are compared with the rules of others:
// the first ones by address, and the first node ports.
func (f *Family) Compared() []Frontend {
	var addrs, ports []Frontend
	for _, e := range f.Frontends {
		switch {
		case e.Addr.IsValid() && len(addrs) < Sample:
			addrs = append(addrs, e)
		case !e.Addr.IsValid() && len(ports) < Sample:
			ports = append(ports, e)
		}
	}
	return slices.Concat(addrs, ports)
}

// ours reports whether a table is one of ours, by name.
func ours(t *ruleset.Table) bool {
	return t.Name == nft.TableName && !t.Legacy && (t.Family == ruleset.IPv4 || t.Family == ruleset.IPv6)
}
