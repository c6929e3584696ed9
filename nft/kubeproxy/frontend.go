// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// Frontend is what clients address.
type Frontend struct {
	Family nft.Family
	Proto  nft.Proto
	Addr   netip.Addr // the zero Addr is any of this node's, of a node port
	Port   uint16
}

// String returns "tcp 10.96.0.10:80", or "tcp node port 30080 (ip)".
func (f Frontend) String() string {
	if !f.Addr.IsValid() {
		return fmt.Sprintf("%s node port %d (%s)", f.Proto, f.Port, f.Family)
	}
	return fmt.Sprintf("%s %s", f.Proto, netip.AddrPortFrom(f.Addr, f.Port))
}

// Compare orders by family, address, port and protocol.
func (f Frontend) Compare(o Frontend) int {
	return cmp.Or(cmp.Compare(f.Family, o.Family), f.Addr.Compare(o.Addr), cmp.Compare(f.Port, o.Port), cmp.Compare(f.Proto, o.Proto))
}

// sorted returns each frontend once, in order.
func sorted(all []Frontend) []Frontend {
	slices.SortFunc(all, Frontend.Compare)
	return slices.Compact(all)
}

// Missing returns those of want that are not in have. A node port at an address of the
// node, as IPVS has them, is there if the node port is.
func Missing(want, have []Frontend) (missing []Frontend) {
	known := make(map[Frontend]bool, len(have))
	for _, f := range have {
		known[f] = true
	}
	for _, f := range want {
		if !known[f] {
			missing = append(missing, f)
		}
	}
	return missing
}

// frontendChains are those whose rules are about one frontend each: nat's lead to
// endpoints, filter's refuse where there are none.
var frontendChains = map[string][]string{
	"nat":    {"KUBE-SERVICES", "KUBE-NODEPORTS"},
	"filter": {"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"},
}

// rule is what matters of a rule of iptables.
type rule struct {
	chain, target string // target is a chain that it jumps to
	comment       string
	handle        uint64 // nf_tables alone
	account       string // that it counts in, of nfacct
	// What it wants of a packet; zero is anything.
	dst   netip.Prefix
	proto nft.Proto
	port  uint16
}

// frontend returns the one that a rule is about.
func (r *rule) frontend(f nft.Family, table string) (Frontend, bool) {
	if r.port == 0 || r.proto == 0 || !slices.Contains(frontendChains[table], r.chain) {
		return Frontend{}, false
	}
	found := Frontend{Family: f, Proto: r.proto, Port: r.port}
	if r.dst.IsValid() {
		if !r.dst.IsSingleIP() {
			return Frontend{}, false // node ports at 127.0.0.0/8 have a rule of their own
		}
		found.Addr = r.dst.Addr()
	}
	return found, true
}

// isJump says whether it is a jump of kube-proxy's from a chain that is not.
func (r *rule) isJump() bool {
	return slices.Contains(builtin, r.chain) && slices.Contains(comments, strings.TrimSpace(r.comment))
}
