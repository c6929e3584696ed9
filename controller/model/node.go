// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Node is this node.
type Node struct {
	// Addrs is the first address of each family, invalid if there is none: where
	// node ports are served by default (kube-proxy's nodePortAddresses: primary).
	Addrs [Families]netip.Addr
}

// FromNode reads a Node: internal addresses before external ones, as kube-proxy
// prefers them.
func FromNode(n *corev1.Node) Node {
	var out Node
	for _, kind := range [...]corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, in := range n.Status.Addresses {
			if in.Type != kind {
				continue
			}
			if a, err := parseAddr(in.Address); err == nil && !out.Addrs[FamilyOf(a)].IsValid() {
				out.Addrs[FamilyOf(a)] = a
			}
		}
	}
	return out
}
