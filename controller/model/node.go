// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// Node is this node.
type Node struct {
	// Zone is the value of the label topology.kubernetes.io/zone; "" is none.
	Zone string
	// Addrs is the first address of each family, invalid if there is none: where
	// node ports are served by default (kube-proxy's nodePortAddresses: primary).
	Addrs [Families]netip.Addr
}

// FromNode reads a Node. Internal addresses come before external ones, as
// in kube-proxy.
func FromNode(n *corev1.Node) Node {
	out := Node{Zone: n.Labels[corev1.LabelTopologyZone]}
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
