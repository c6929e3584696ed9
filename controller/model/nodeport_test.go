// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"
)

// TestNodePorts: what this node's own processes find at node ports.
func TestNodePorts(t *testing.T) {
	name := types.NamespacedName{Namespace: "default", Name: "web"}
	at := func(addrs ...string) (all []netip.AddrPort) {
		for _, a := range addrs {
			all = append(all, netip.AddrPortFrom(addr(a), 8080))
		}
		return all
	}
	base := func(change func(*Service)) *Service {
		s := &Service{
			Name:       name,
			ClusterIPs: [Families]netip.Addr{addr("10.96.0.10"), addr("fd00:96::10")},
			Ports:      []ServicePort{{"http", TCP, 80, 30080}, {"plain", TCP, 81, 0}, {"dns", UDP, 53, 30053}},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	slice := func(endpoints ...Endpoint) *Slice {
		return &Slice{
			Name: types.NamespacedName{Namespace: "default", Name: "web-1"}, Service: name,
			Ports:     []SlicePort{{"http", TCP, 8080}, {"plain", TCP, 8080}},
			Endpoints: endpoints,
		}
	}
	here := Endpoint{Addr: addr("10.0.0.2"), Ready: true, Local: true}
	away := Endpoint{Addr: addr("10.0.0.1"), Ready: true}
	leaving := Endpoint{Addr: addr("10.0.0.3"), Serving: true, Terminating: true, Local: true}
	loop := Endpoint{Addr: addr("127.0.0.1"), Ready: true}
	ports := func(endpoints ...string) []NodePort {
		return []NodePort{{IPv4, TCP, 30080, at(endpoints...), 0}, {IPv4, UDP, 30053, nil, 0}}
	}
	cases := []struct {
		name    string
		service *Service
		slice   *Slice
		want    []NodePort
	}{
		{"no slice", base(nil), nil, ports()},
		{"policy Cluster", base(nil), slice(here, away), ports("10.0.0.1", "10.0.0.2")},
		{"policies Local", base(func(s *Service) { s.ExternalLocal, s.InternalLocal = true, true }), slice(here, away), ports("10.0.0.1", "10.0.0.2")},
		{"ready away, terminating here", base(func(s *Service) { s.ExternalLocal = true }), slice(leaving, away), ports("10.0.0.1")},
		{"last resort", base(nil), slice(leaving), ports("10.0.0.3")},
		{"loopback", base(nil), slice(loop, here), ports("10.0.0.2")},
		{"other family only", base(func(s *Service) { s.ClusterIPs[IPv4] = netip.Addr{} }), slice(here), nil},
		{"no Service", nil, slice(here), nil},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := NewState()
			if tc.slice != nil {
				s.SetSlice(tc.slice)
			}
			if tc.service != nil {
				s.SetService(tc.service)
			}
			var got []NodePort
			for _, e := range s.TakeDirty() {
				got = e.NodePorts(IPv4, "")
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("NodePorts (-want +got):\n%s", diff)
			}
		})
	}
}
