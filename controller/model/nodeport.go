// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"
	"time"
)

// NodePort is a node port in one family as this node's own processes are to find
// it.
type NodePort struct {
	Family   Family
	Protocol Protocol
	Number   uint16
	// Endpoints are sorted. What comes from the node itself is led to all of them
	// under either external traffic policy, as in kube-proxy (pkg/proxy/nftables,
	// where a local source address goes by the policy Local).
	Endpoints []netip.AddrPort
	// Affinity is how long after its last connection a client's next one goes to
	// the same endpoint; 0 is no affinity.
	Affinity time.Duration
}

// NodePorts lists the node ports of an entry's Service in a family, for a node in
// a zone. Endpoints on loopback, which the API does not allow and manifests may
// have, are left out: whoever serves node ports there could meet itself.
func (e *Entry) NodePorts(f Family, zone string) []NodePort {
	if e.Service == nil || !e.Service.ClusterIPs[f].IsValid() {
		return nil
	}
	var all []NodePort
	for i := range e.Service.Ports {
		p := &e.Service.Ports[i]
		if p.NodePort == 0 {
			continue
		}
		endpoints := Select(e.Endpoints(nil, p, f), zone).Cluster
		endpoints = slices.DeleteFunc(endpoints, func(a netip.AddrPort) bool { return a.Addr().IsLoopback() })
		all = append(all, NodePort{Family: f, Protocol: p.Protocol, Number: p.NodePort, Endpoints: endpoints, Affinity: e.Service.AffinityTimeout})
	}
	return all
}
