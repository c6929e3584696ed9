// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"
)

// Serving lists the endpoints of a Service port that a connection may have and
// keep, sorted: all that serve, terminating or not, whatever topology and traffic
// policy say of new connections. Ready ones are among them although they may not
// serve (publishNotReadyAddresses), since they get new connections.
func (s *State) Serving(service types.NamespacedName, port string, p Protocol, f Family) []netip.AddrPort {
	e := s.entries[service]
	if e == nil {
		return nil
	}
	var serving []netip.AddrPort
	for _, endpoint := range e.Endpoints(nil, &ServicePort{Name: port, Protocol: p}, f) {
		if endpoint.Serving || endpoint.Ready {
			serving = append(serving, endpoint.Addr)
		}
	}
	return serving
}
