// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// Found is what kube-proxy has left. The zero value is nothing.
type Found struct {
	Tables   []Table
	Rules    []Rules
	Services []VirtualService
	IPSets   []string // their names
	Device   *Device  // nil is none

	frontends []Frontend
	// generation of nf_tables in which it was found.
	generation uint32
	// yielded: new connections of this node come from another address than the device's.
	yielded bool
}

// Table is one of the mode nftables.
type Table struct {
	Family    nft.Family
	Frontends int
	handle    uint64
}

// Backend says who keeps a table of iptables.
type Backend string

// The backends.
const (
	IPTablesNFT    Backend = "iptables-nft"
	IPTablesLegacy Backend = "iptables-legacy"
)

// Rules are what a table of iptables has of kube-proxy's.
type Rules struct {
	Backend Backend
	Family  nft.Family
	Table   string   // nat, filter or mangle
	Chains  []string // that go
	Jumps   int      // to them, from other chains
	InThem  int      // rules in the chains
	Kept    []Kept   // chains that stay
	// Accepts says that the policy of FORWARD is to drop, and that kube-proxy's chain
	// KUBE-FORWARD has accepted packets to Services before it came to that.
	Accepts bool
	edit    edit
	// accounts are those of nfacct that rules in the chains count in.
	accounts []string
}

// Kept is a chain that somebody else's rules jump to.
type Kept struct {
	Chain string
	By    string // the chain that the rule is in
}

// edit is what there is to change in a table of iptables.
type edit struct {
	jumps []rule   // to delete
	flush []string // chains to empty
	drop  []string // chains to delete
}

// VirtualService is one of IPVS.
type VirtualService struct {
	Frontend
	Scheduler string
	Endpoints int
	// Active and Inactive connections are known to IPVS. Those are inactive that are
	// beginning or ending, and all of UDP.
	Active, Inactive int
	family           uint16 // AF_INET or AF_INET6
}

// Device is the dummy of the mode ipvs.
type Device struct {
	Index int
	Addrs []netip.Addr
	own   map[bool]netip.Addr // of this host, in IPv4 (true) and IPv6
}

// Empty says that nothing is left.
func (f *Found) Empty() bool {
	return len(f.Tables) == 0 && len(f.Services) == 0 && len(f.IPSets) == 0 && f.Device == nil &&
		!slices.ContainsFunc(f.Rules, func(r Rules) bool { return !r.empty() })
}

func (r *Rules) empty() bool { return len(r.edit.jumps)+len(r.edit.flush)+len(r.edit.drop) == 0 }

// Mode is the mode of kube-proxy that leaves this: nftables, ipvs or iptables; empty is
// none. With leftovers of several it is the one that was there last, as far as can be
// told: kube-proxy in nftables mode removes what the others left when it starts.
func (f *Found) Mode() string {
	isIPVS := func(r Rules) bool {
		return slices.Contains(r.Chains, "KUBE-LOAD-BALANCER") || slices.Contains(r.Chains, "KUBE-IPVS-FILTER")
	}
	switch {
	case len(f.Tables) > 0:
		return "nftables"
	case len(f.Services) > 0, f.Device != nil, len(f.IPSets) > 0, slices.ContainsFunc(f.Rules, isIPVS):
		return "ipvs"
	case !f.Empty():
		return "iptables"
	}
	return ""
}

// Frontends are those that what is left still carries, each once, in order. Those of
// IPVS at addresses of this node are node ports.
func (f *Found) Frontends() []Frontend { return f.frontends }

// Lines tell what there is, a line each, for people.
func (f *Found) Lines() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, t := range f.Tables {
		add("nftables: table %s %s, %s", t.Family, proxyTable, count(t.Frontends, "frontend"))
	}
	for _, r := range f.Rules {
		if !r.empty() {
			add("%s: table %s of %s: %s with %s, %s to them: %s", r.Backend, r.Table, r.Family,
				count(len(r.Chains), "chain"), count(r.InThem, "rule"), count(r.Jumps, "jump"), few(r.Chains))
		}
	}
	if len(f.Services) > 0 {
		connections := 0
		for _, s := range f.Services {
			connections += s.Active + s.Inactive
		}
		add("IPVS: %s, %s", count(len(f.Services), "virtual service"), count(connections, "connection"))
	}
	if len(f.IPSets) > 0 {
		add("ipset: %s: %s", count(len(f.IPSets), "set"), few(f.IPSets))
	}
	if f.Device != nil {
		add("device %s with %s", device, count(len(f.Device.Addrs), "address"))
	}
	return lines
}

// KeptLines tell what of it stays, and why.
func (f *Found) KeptLines() (lines []string) {
	for _, r := range f.Rules {
		for _, k := range r.Kept {
			what := "stays, and is emptied"
			if k.Chain == markMasq {
				what = "stays as it is"
			}
			lines = append(lines, fmt.Sprintf("%s: table %s of %s: chain %s %s: a rule of chain %s, which is not kube-proxy's, jumps there",
				r.Backend, r.Table, r.Family, k.Chain, what, k.By))
		}
	}
	return lines
}

// count says "1 rule", "2 rules", "0 addresses".
func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "s"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// few names the first of many.
func few(names []string) string {
	const most = 4
	if len(names) <= most {
		return strings.Join(names, " ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], " "), len(names)-most)
}
