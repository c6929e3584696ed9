// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Node is this node.
type Node struct {
	// Zone is the value of the label topology.kubernetes.io/zone; "" is none.
	Zone string
	// Addrs is the first address of each family, invalid if there is none: where
	// node ports are served by default (kube-proxy's nodePortAddresses: primary).
	Addrs [Families]netip.Addr
	// PodCIDRs are the addresses of this node's pods, the first range of each family;
	// invalid is none.
	PodCIDRs [Families]netip.Prefix
	// Leaving: the node is on its way out, and nobody should send it new connections.
	Leaving bool
}

// toBeDeleted is the taint by which the cluster autoscaler marks nodes that it is
// about to remove; kube-proxy's /healthz fails on them (KEP-3836).
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// FromNode reads a Node. Internal addresses come before external ones, as
// in kube-proxy. What cannot be read is left out.
func FromNode(n *corev1.Node) Node {
	out := Node{Zone: n.Labels[corev1.LabelTopologyZone], Leaving: n.DeletionTimestamp != nil}
	for _, t := range n.Spec.Taints {
		out.Leaving = out.Leaving || t.Key == toBeDeleted
	}
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
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 {
		cidrs = []string{n.Spec.PodCIDR} // old objects have only the one
	}
	for _, text := range cidrs {
		if p, err := parsePrefix(strings.TrimSpace(text)); err == nil && !out.PodCIDRs[FamilyOf(p.Addr())].IsValid() {
			out.PodCIDRs[FamilyOf(p.Addr())] = p
		}
	}
	return out
}
