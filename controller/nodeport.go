// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// NodePorts says on which of the node's addresses node ports are served
// (KubeProxyConfiguration, nodePortAddresses). The zero value is the node's
// primary addresses, which is the default in kube-proxy's nftables mode.
type NodePorts struct {
	// Everywhere serves on every local address but loopback.
	Everywhere bool
	// Primary serves on the node's primary addresses beside those in CIDRs.
	Primary bool
	// CIDRs serve on the local addresses in any of them. A family without a CIDR
	// is served everywhere, as in kube-proxy, unless Primary asks for less.
	CIDRs []netip.Prefix
}

// ParseNodePorts reads the words of --nodeport-addresses: `primary`, `localhost`,
// `all`, and CIDRs, of which one of length 0 means all of its family. Every problem
// is reported at once.
func ParseNodePorts(words []string) (NodePorts, error) {
	var n NodePorts
	var errs []error
	seen := make(map[string]bool)
	for _, w := range words {
		if w = strings.TrimSpace(w); seen[w] && !strings.Contains(w, "/") {
			errs = append(errs, fmt.Errorf("%q is there twice", w))
		}
		seen[w] = true
		switch w {
		case "primary":
			n.Primary = true
			continue
		case "all":
			n.Everywhere = true
			continue
		case "localhost":
			n.CIDRs = append(n.CIDRs, loopback4, loopback6)
			continue
		}
		p, err := netip.ParsePrefix(w)
		if err != nil {
			errs = append(errs, fmt.Errorf("node port address %q is neither `primary`, `localhost`, `all`, nor a CIDR like 192.0.2.0/24", w))
			continue
		}
		n.CIDRs = append(n.CIDRs, p.Masked())
	}
	return n, errors.Join(errs...)
}

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// All reports whether node ports of a family are served on all addresses.
func (n NodePorts) All(f nft.Family) bool {
	if n.Everywhere || n.hasZero(f) {
		return true
	}
	here := func(p netip.Prefix) bool { return nft.FamilyOf(p.Addr()) == f }
	return len(n.CIDRs) > 0 && !n.Primary && !slices.ContainsFunc(n.CIDRs, here)
}

// OnlyLoopback reports whether nothing but loopback addresses is named.
func (n NodePorts) OnlyLoopback() bool {
	other := func(p netip.Prefix) bool { return !p.Addr().IsLoopback() }
	return !n.Everywhere && !n.Primary && len(n.CIDRs) > 0 && !slices.ContainsFunc(n.CIDRs, other)
}

func (n NodePorts) hasZero(f nft.Family) bool {
	for _, p := range n.CIDRs {
		if nft.FamilyOf(p.Addr()) == f && p.Bits() == 0 {
			return true
		}
	}
	return false
}

// Addrs chooses the addresses that node ports are served on, among those of the
// node and those of the host.
func (n NodePorts) Addrs(node *model.Node, local []netip.Addr) []netip.Addr {
	var addrs []netip.Addr
	if len(n.CIDRs) == 0 || n.Primary {
		for _, a := range node.Addrs {
			if a.IsValid() && !a.IsLoopback() {
				addrs = append(addrs, a)
			}
		}
	}
	for _, a := range local {
		for _, p := range n.CIDRs {
			if p.Contains(a) && !a.IsLoopback() && !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
				break
			}
		}
	}
	return addrs
}
