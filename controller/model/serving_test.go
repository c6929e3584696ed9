// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestServing(t *testing.T) {
	name := types.NamespacedName{Namespace: "default", Name: "dns"}
	endpoint := func(last byte, ready, serving, terminating bool) Endpoint {
		return Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, last}), Ready: ready, Serving: serving, Terminating: terminating}
	}
	s := NewState()
	s.SetSlice(&Slice{
		Name:    types.NamespacedName{Namespace: "default", Name: "dns-1"},
		Service: name,
		Ports:   []SlicePort{{"dns", TCP, 54}, {"dns", UDP, 53}},
		Endpoints: []Endpoint{
			endpoint(4, true, false, false), // publishNotReadyAddresses
			endpoint(3, false, false, true),
			endpoint(2, false, true, true),
			endpoint(1, true, true, false),
			endpoint(5, false, false, false),
		},
	})
	cases := []struct {
		name string
		port string
		p    Protocol
		f    Family
		want string
	}{
		{"UDP", "dns", UDP, IPv4, "[10.0.0.1:53 10.0.0.2:53 10.0.0.4:53]"},
		{"the other protocol's number", "dns", TCP, IPv4, "[10.0.0.1:54 10.0.0.2:54 10.0.0.4:54]"},
		{"other family", "dns", UDP, IPv6, "[]"},
		{"other port", "metrics", UDP, IPv4, "[]"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := fmt.Sprint(s.Serving(name, tc.port, tc.p, tc.f)); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
	if got := s.Serving(types.NamespacedName{Name: "other"}, "dns", UDP, IPv4); got != nil {
		t.Errorf("a Service that is not there has %v", got)
	}
}
