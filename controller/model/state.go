// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

// State is what is known of the cluster. One goroutine owns it. Every change
// marks the Services that it may affect; what they lead to is for the reader to
// find out.
type State struct {
	services map[types.NamespacedName]*Service
	slices   map[types.NamespacedName][]*Slice // by Service, sorted by name
	owners   map[types.NamespacedName]types.NamespacedName
	dirty    map[types.NamespacedName]struct{}
}

// NewState returns a State of an empty cluster.
func NewState() *State {
	return &State{
		services: make(map[types.NamespacedName]*Service),
		slices:   make(map[types.NamespacedName][]*Slice),
		owners:   make(map[types.NamespacedName]types.NamespacedName),
		dirty:    make(map[types.NamespacedName]struct{}),
	}
}

// SetService adds or replaces a Service.
func (s *State) SetService(svc *Service) {
	s.services[svc.Name] = svc
	s.dirty[svc.Name] = struct{}{}
}

// DeleteService removes a Service; its slices stay, they may outlive it.
func (s *State) DeleteService(name types.NamespacedName) {
	if _, ok := s.services[name]; ok {
		delete(s.services, name)
		s.dirty[name] = struct{}{}
	}
}

// SetSlice adds or replaces an EndpointSlice, which may have changed its Service.
func (s *State) SetSlice(slice *Slice) {
	if owner, ok := s.owners[slice.Name]; ok && owner != slice.Service {
		s.DeleteSlice(slice.Name)
	}
	s.owners[slice.Name] = slice.Service
	all := s.slices[slice.Service]
	i, found := slices.BinarySearchFunc(all, slice.Name.Name, compareSliceName)
	if found {
		all[i] = slice
	} else {
		s.slices[slice.Service] = slices.Insert(all, i, slice)
	}
	s.dirty[slice.Service] = struct{}{}
}

// DeleteSlice removes an EndpointSlice.
func (s *State) DeleteSlice(name types.NamespacedName) {
	owner, ok := s.owners[name]
	if !ok {
		return
	}
	delete(s.owners, name)
	all := s.slices[owner]
	if i, found := slices.BinarySearchFunc(all, name.Name, compareSliceName); found {
		all = slices.Delete(all, i, i+1)
	}
	if len(all) == 0 {
		delete(s.slices, owner)
	} else {
		s.slices[owner] = all
	}
	s.dirty[owner] = struct{}{}
}

func compareSliceName(s *Slice, name string) int { return strings.Compare(s.Name.Name, name) }

// Service returns a Service, or nil.
func (s *State) Service(name types.NamespacedName) *Service { return s.services[name] }

// Names lists all Services, in no order.
func (s *State) Names() []types.NamespacedName {
	names := make([]types.NamespacedName, 0, len(s.services))
	for name := range s.services {
		names = append(names, name)
	}
	return names
}

// MarkAll makes TakeDirty list all Services.
func (s *State) MarkAll() {
	for name := range s.services {
		s.dirty[name] = struct{}{}
	}
}

// TakeDirty lists the Services that changes may have affected since the last
// call, in no order; some may not exist any more.
func (s *State) TakeDirty() []types.NamespacedName {
	if len(s.dirty) == 0 {
		return nil
	}
	names := make([]types.NamespacedName, 0, len(s.dirty))
	for name := range s.dirty {
		names = append(names, name)
	}
	s.dirty = make(map[types.NamespacedName]struct{}) // clearing would keep its size
	return names
}

// CompareNames orders objects by namespace and name.
func CompareNames(a, b types.NamespacedName) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// PortEndpoint is an endpoint of one Service port.
type PortEndpoint struct {
	Addr netip.AddrPort
	Endpoint
}

// Endpoints appends to none what all slices say about a Service port in a family,
// merged and sorted by address. Of two entries for one address and port, a pod that runs wins over
// one that terminates: pods reuse addresses.
func (s *State) Endpoints(none []PortEndpoint, service types.NamespacedName, port *ServicePort, f Family) []PortEndpoint {
	all := none
	for _, slice := range s.slices[service] {
		if slice.Family != f {
			continue
		}
		for _, p := range slice.Ports {
			if p.Name != port.Name || p.Protocol != port.Protocol {
				continue
			}
			all = slices.Grow(all, len(slice.Endpoints))
			for _, e := range slice.Endpoints {
				all = append(all, PortEndpoint{netip.AddrPortFrom(e.Addr, p.Port), e})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b PortEndpoint) int { return a.Addr.Compare(b.Addr) })
	merged := all[:0]
	for _, e := range all {
		if n := len(merged); n > 0 && merged[n-1].Addr == e.Addr {
			if !e.Terminating {
				merged[n-1] = e
			}
			continue
		}
		merged = append(merged, e)
	}
	return merged
}

// MarkDirty makes TakeDirty list Services again.
func (s *State) MarkDirty(names []types.NamespacedName) {
	for _, name := range names {
		s.dirty[name] = struct{}{}
	}
}
