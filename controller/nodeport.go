// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"errors"
	"fmt"
	"net/netip"
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
	// CIDRs serve on the local addresses in any of them. A family without a CIDR
	// is served everywhere, as in kube-proxy.
	CIDRs []netip.Prefix
}

// ParseNodePorts reads the words of --nodeport-addresses: `primary`, `all`, or
// CIDRs, of which one of length 0 means all. Every problem is reported at once.
func ParseNodePorts(words []string) (NodePorts, error) {
	var n NodePorts
	var errs []error
	for _, w := range words {
		switch w = strings.TrimSpace(w); w {
		case "primary", "all":
			if len(words) > 1 {
				errs = append(errs, fmt.Errorf("%q cannot be combined with other node port addresses", w))
			}
			n.Everywhere = w == "all"
			continue
		}
		p, err := netip.ParsePrefix(w)
		if err != nil {
			errs = append(errs, fmt.Errorf("node port address %q is neither `primary`, `all`, nor a CIDR like 192.0.2.0/24", w))
			continue
		}
		n.CIDRs = append(n.CIDRs, p.Masked())
	}
	return n, errors.Join(errs...)
}

// All reports whether node ports of a family are served on all addresses.
func (n NodePorts) All(f nft.Family) bool {
	if n.Everywhere {
		return true
	}
	other := false
	for _, p := range n.CIDRs {
		if nft.FamilyOf(p.Addr()) == f {
			if p.Bits() == 0 {
				return true
			}
			return n.hasZero(f)
		}
		other = true
	}
	return other
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
	if len(n.CIDRs) == 0 {
		for _, a := range node.Addrs {
			if a.IsValid() && !a.IsLoopback() {
				addrs = append(addrs, a)
			}
		}
		return addrs
	}
	for _, a := range local {
		for _, p := range n.CIDRs {
			if p.Contains(a) && !a.IsLoopback() {
				addrs = append(addrs, a)
				break
			}
		}
	}
	return addrs
}
