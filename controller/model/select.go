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

// Selection are the endpoints of a Service port that take new connections.
type Selection struct {
	// Cluster is for the traffic policy Cluster, sorted by address.
	Cluster []netip.AddrPort
	// Local are those of Cluster that run on this node.
	Local []netip.AddrPort
}

// Select chooses among the endpoints of a Service port, as State.Endpoints
// returns them: the ready ones; if there is none, those that serve while they
// terminate (KEP-1669).
func Select(endpoints []PortEndpoint) Selection {
	var s Selection
	anyReady := AnyReady(endpoints)
	for i := range endpoints {
		if !endpoints[i].Judge(anyReady).In() {
			continue
		}
		s.Cluster = append(s.Cluster, endpoints[i].Addr)
		if endpoints[i].Local {
			s.Local = append(s.Local, endpoints[i].Addr)
		}
	}
	return s
}

// AnyReady reports whether an endpoint is ready.
func AnyReady(endpoints []PortEndpoint) bool {
	for i := range endpoints {
		if endpoints[i].Ready {
			return true
		}
	}
	return false
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
