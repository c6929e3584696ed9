// SPDX-License-Identifier: Apache-2.0

package model

import "net/netip"

// Reason says why an endpoint takes new connections or does not.
type Reason uint8

// The reasons, the first two for endpoints that are in.
const (
	// Ready: the endpoint is ready.
	Ready Reason = iota
	// LastResort: it serves while it terminates, and no endpoint is ready.
	LastResort
	// NotReady: it is neither ready nor serving while it terminates.
	NotReady
	// Superseded: it serves while it terminates, but there are ready ones.
	Superseded
	// OtherNode: all endpoints have node hints, and this node's are others.
	OtherNode
	// OtherZone: all endpoints have zone hints, and this zone's are others.
	OtherZone
	// Remote: the policy is Local, and the endpoint is on another node.
	Remote
)

// In reports whether the endpoint takes new connections.
func (r Reason) In() bool { return r <= LastResort }

// String returns the reason in words.
func (r Reason) String() string {
	return [...]string{
		Ready:      "ready",
		LastResort: "terminating but serving, and none is ready",
		NotReady:   "not ready",
		Superseded: "terminating, and others are ready",
		OtherNode:  "meant for other nodes",
		OtherZone:  "meant for other zones",
		Remote:     "on another node",
	}[r]
}

// Selection are the endpoints of a Service port that take new connections, sorted
// by address.
type Selection struct {
	// Cluster is for the traffic policy Cluster.
	Cluster []netip.AddrPort
	// Local is for the traffic policy Local: endpoints on this node. It is chosen
	// by itself: it may hold terminating ones while others are ready elsewhere.
	Local []netip.AddrPort
	// Pods are the addresses on this node among both, each once.
	Pods []netip.Addr
}

// Select chooses among the endpoints of a Service port, as State.Endpoints
// returns them, for a node in a zone.
func Select(endpoints []PortEndpoint, zone string) Selection {
	var s Selection
	cluster, local := forCluster(endpoints, zone), forLocal(endpoints)
	in := 0
	for i := range endpoints {
		if cluster(&endpoints[i].Endpoint).In() {
			in++
		}
	}
	if in > 0 {
		s.Cluster = make([]netip.AddrPort, 0, in) // it is kept: room to grow would be kept, too
	}
	for i := range endpoints {
		e := &endpoints[i]
		inCluster, inLocal := cluster(&e.Endpoint).In(), local(&e.Endpoint).In()
		if inCluster {
			s.Cluster = append(s.Cluster, e.Addr)
		}
		if inLocal {
			s.Local = append(s.Local, e.Addr)
		}
		if n := len(s.Pods); e.Local && (inCluster || inLocal) && (n == 0 || s.Pods[n-1] != e.Endpoint.Addr) {
			s.Pods = append(s.Pods, e.Endpoint.Addr)
		}
	}
	return s
}

// Judge says of each endpoint of a Service port what Select makes of it, under the
// policy Cluster and under Local.
func Judge(endpoints []PortEndpoint, zone string) (cluster, local []Reason) {
	forCluster, forLocal := forCluster(endpoints, zone), forLocal(endpoints)
	for i := range endpoints {
		cluster = append(cluster, forCluster(&endpoints[i].Endpoint))
		local = append(local, forLocal(&endpoints[i].Endpoint))
	}
	return cluster, local
}

// judge says whether an endpoint takes new connections, and why.
type judge func(*Endpoint) Reason

// forCluster is the policy Cluster: the ready endpoints, of those the ones that
// hints mean for this node or else for its zone; if none is ready, those that
// serve while they terminate (KEP-1669). A hint counts only if every ready
// endpoint has one of its kind and some name us: half-written hints must not cut
// endpoints off (kube-proxy, pkg/proxy/topology.go).
func forCluster(endpoints []PortEndpoint, zone string) judge {
	ready, nodes, zones := false, true, true
	thisNode, thisZone := false, false
	for i := range endpoints {
		e := &endpoints[i]
		if !e.Ready {
			continue
		}
		ready = true
		nodes, zones = nodes && e.Hints.Nodes, zones && e.Hints.Zones()
		thisNode, thisZone = thisNode || e.Hints.ThisNode, thisZone || e.Hints.Zone(zone)
	}
	return func(e *Endpoint) Reason {
		switch r := e.state(ready); {
		case r == Ready && nodes && thisNode && !e.Hints.ThisNode:
			return OtherNode
		case r == Ready && !(nodes && thisNode) && zones && thisZone && !e.Hints.Zone(zone):
			return OtherZone
		default:
			return r
		}
	}
}

// forLocal is the policy Local: the same by readiness, among this node's alone.
func forLocal(endpoints []PortEndpoint) judge {
	ready := false
	for i := range endpoints {
		ready = ready || endpoints[i].Ready && endpoints[i].Local
	}
	return func(e *Endpoint) Reason {
		if !e.Local {
			return Remote
		}
		return e.state(ready)
	}
}

// state judges by readiness alone.
func (e *Endpoint) state(anyReady bool) Reason {
	switch {
	case e.Ready:
		return Ready
	case !e.Serving || !e.Terminating:
		return NotReady
	case anyReady:
		return Superseded
	}
	return LastResort
}
