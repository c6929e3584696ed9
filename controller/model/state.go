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
	entries map[types.NamespacedName]*Entry
	owners  map[types.NamespacedName]*Entry // of slices
	dirty   []*Entry
	// ServiceCIDRs are apart from all that: no Service depends on them.
	ServiceCIDRs ServiceCIDRs
}

// Entry is a name under which there is a Service, EndpointSlices, or both.
type Entry struct {
	Name    types.NamespacedName
	Service *Service // nil if there is none
	slices  []*Slice // sorted by name
	dirty   bool
}

// NewState returns a State of an empty cluster.
func NewState() *State {
	return &State{
		entries: make(map[types.NamespacedName]*Entry),
		owners:  make(map[types.NamespacedName]*Entry),
	}
}

// SetService adds or replaces a Service.
func (s *State) SetService(svc *Service) {
	e := s.entry(svc.Name)
	e.Service = svc
	s.changed(e)
}

// DeleteService removes a Service; its slices stay, they may outlive it.
func (s *State) DeleteService(name types.NamespacedName) {
	if e := s.entries[name]; e != nil && e.Service != nil {
		e.Service = nil
		s.changed(e)
	}
}

// SetSlice adds or replaces an EndpointSlice, which may have changed its Service.
func (s *State) SetSlice(slice *Slice) {
	if owner := s.owners[slice.Name]; owner != nil && owner.Name != slice.Service {
		s.DeleteSlice(slice.Name)
	}
	e := s.entry(slice.Service)
	s.owners[slice.Name] = e
	i, found := slices.BinarySearchFunc(e.slices, slice.Name.Name, compareSliceName)
	if found {
		e.slices[i] = slice
	} else {
		e.slices = slices.Insert(e.slices, i, slice)
	}
	s.changed(e)
}

// DeleteSlice removes an EndpointSlice.
func (s *State) DeleteSlice(name types.NamespacedName) {
	e := s.owners[name]
	if e == nil {
		return
	}
	delete(s.owners, name)
	if i, found := slices.BinarySearchFunc(e.slices, name.Name, compareSliceName); found {
		e.slices = slices.Delete(e.slices, i, i+1)
	}
	s.changed(e)
}

func compareSliceName(s *Slice, name string) int { return strings.Compare(s.Name.Name, name) }

// entry finds or makes an entry.
func (s *State) entry(name types.NamespacedName) *Entry {
	e := s.entries[name]
	if e == nil {
		e = &Entry{Name: name}
		s.entries[name] = e
	}
	return e
}

// changed marks an entry, and forgets it if nothing is left of it: the mark is
// the last that is heard of it.
func (s *State) changed(e *Entry) {
	s.Mark(e)
	if e.Service == nil && len(e.slices) == 0 {
		delete(s.entries, e.Name)
	}
}

// Mark makes TakeDirty list an entry.
func (s *State) Mark(e *Entry) {
	if !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, e)
	}
}

// MarkAll makes TakeDirty list all Services.
func (s *State) MarkAll() {
	for _, e := range s.entries {
		s.Mark(e)
	}
}

// TakeDirty lists the entries that changed since the last call. One that was
// forgotten stands before a later one of the same name.
func (s *State) TakeDirty() []*Entry {
	dirty := s.dirty
	s.dirty = nil
	for _, e := range dirty {
		e.dirty = false
	}
	return dirty
}

// Service returns a Service, or nil.
func (s *State) Service(name types.NamespacedName) *Service {
	if e := s.entries[name]; e != nil {
		return e.Service
	}
	return nil
}

// Entry returns what there is under a name: a Service, EndpointSlices, or both; nil
// is nothing.
func (s *State) Entry(name types.NamespacedName) *Entry { return s.entries[name] }

// Count is the number of Services.
func (s *State) Count() (n int) {
	for _, e := range s.entries {
		if e.Service != nil {
			n++
		}
	}
	return n
}

// Slice returns an EndpointSlice, or nil.
func (s *State) Slice(name types.NamespacedName) *Slice {
	if e := s.owners[name]; e != nil {
		if i, found := slices.BinarySearchFunc(e.slices, name.Name, compareSliceName); found {
			return e.slices[i]
		}
	}
	return nil
}

// Services lists all entries that have a Service, in no order.
func (s *State) Services() []*Entry {
	var all []*Entry
	for _, e := range s.entries {
		if e.Service != nil {
			all = append(all, e)
		}
	}
	return all
}

// Slices is how many EndpointSlices there are under the name.
func (e *Entry) Slices() int { return len(e.slices) }

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
func (e *Entry) Endpoints(none []PortEndpoint, port *ServicePort, f Family) []PortEndpoint {
	all := none
	for _, slice := range e.slices {
		if slice.Family != f {
			continue
		}
		// A Service has room for 20,000 ports, and so has each of its slices.
		first, _ := slices.BinarySearchFunc(slice.Ports, port, func(p SlicePort, port *ServicePort) int { return p.compare(port.Name, port.Protocol) })
		for _, p := range slice.Ports[first:] {
			if p.compare(port.Name, port.Protocol) != 0 {
				break
			}
			all = slices.Grow(all, len(slice.Endpoints))
			for _, endpoint := range slice.Endpoints {
				all = append(all, PortEndpoint{netip.AddrPortFrom(endpoint.Addr, p.Port), endpoint})
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
