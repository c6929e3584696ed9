// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// LocalMode is a way to tell the traffic of pods on this node from all other
// (KubeProxyConfiguration, detectLocalMode).
type LocalMode string

// The modes, in kube-proxy's words.
const (
	// LocalByClusterCIDR: by the source address, which is one of any pod's.
	LocalByClusterCIDR LocalMode = "ClusterCIDR"
	// LocalByNodeCIDR: by the source address, which is one of this node's pods.
	LocalByNodeCIDR LocalMode = "NodeCIDR"
	// LocalByBridge: by the interface that it comes from.
	LocalByBridge LocalMode = "BridgeInterface"
	// LocalByInterfacePrefix: by how the name of that interface begins.
	LocalByInterfacePrefix LocalMode = "InterfaceNamePrefix"
)

// DetectLocal says which traffic is that of pods on this node.
type DetectLocal struct {
	Mode LocalMode
	// CIDRs are for LocalByClusterCIDR: of each family one, or none.
	CIDRs [model.Families]netip.Prefix
	// Interface is for LocalByBridge the bridge's name, and for
	// LocalByInterfacePrefix the beginning of names.
	Interface string
}

// CIDR returns where pods are in a family by a mode that goes by addresses. It is
// invalid if the mode goes by something else, or if nothing tells: node may be nil.
// Then no traffic is known to be local, and none not to be, as in kube-proxy.
func (d DetectLocal) CIDR(f nft.Family, node *model.Node) netip.Prefix {
	family := model.IPv4
	if f == nft.IPv6 {
		family = model.IPv6
	}
	switch {
	case d.Mode == LocalByClusterCIDR:
		return d.CIDRs[family]
	case d.Mode == LocalByNodeCIDR && node != nil:
		return node.PodCIDRs[family]
	}
	return netip.Prefix{}
}
