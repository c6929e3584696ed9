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
)

// In reports whether the endpoint takes new connections.
func (r Reason) In() bool { return r <= LastResort }

// String returns the reason in words.
func (r Reason) String() string {
	switch r {
	case Ready:
		return "ready"
	case LastResort:
		return "terminating but serving, and none is ready"
	case NotReady:
		return "not ready"
	case Superseded:
		return "terminating, and others are ready"
	}
	return "unknown"
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
// returns them: the ready ones; if there is none, those that serve while they
// terminate (KEP-1669).
func Select(endpoints []PortEndpoint) Selection {
	var s Selection
	anyReady, localReady := false, false
	for i := range endpoints {
		anyReady = anyReady || endpoints[i].Ready
		localReady = localReady || endpoints[i].Ready && endpoints[i].Local
	}
	for i := range endpoints {
		e := &endpoints[i]
		cluster := e.Judge(anyReady).In()
		local := e.Local && e.Judge(localReady).In()
		if cluster {
			s.Cluster = append(s.Cluster, e.Addr)
		}
		if local {
			s.Local = append(s.Local, e.Addr)
		}
		if n := len(s.Pods); e.Local && (cluster || local) && (n == 0 || s.Pods[n-1] != e.Endpoint.Addr) {
			s.Pods = append(s.Pods, e.Endpoint.Addr)
		}
	}
	return s
}

// Judge says whether an endpoint takes new connections, and why.
func (e *Endpoint) Judge(anyReady bool) Reason {
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
