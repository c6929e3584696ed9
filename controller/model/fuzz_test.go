// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// The fuzz tests take an object as JSON, with any value in any field. Nothing
// panics, and what is read is what the rest of the program relies on.

func FuzzFromService(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var in corev1.Service
		if json.Unmarshal([]byte(text), &in) != nil {
			return
		}
		s, _ := FromService(&in, "")
		if s == nil {
			return
		}
		for i, a := range s.ClusterIPs {
			if a.IsValid() {
				checkAddr(t, a)
				if FamilyOf(a) != Family(i) {
					t.Errorf("cluster IP %v is in the place of the other family", a)
				}
			}
		}
		for _, list := range [][]netip.Addr{s.ExternalIPs, s.LoadBalancerIPs} {
			for i, a := range list {
				checkAddr(t, a)
				if slices.Contains(list[:i], a) {
					t.Errorf("%v is there twice", a)
				}
			}
		}
		checkPorts(t, s.Ports)
		for i, r := range s.SourceRanges {
			checkRanges(t, Family(i), r)
		}
		if s.AffinityTimeout < 0 || s.AffinityTimeout > 24*time.Hour || s.AffinityTimeout%time.Second != 0 {
			t.Errorf("affinity timeout %v", s.AffinityTimeout)
		}
		if s.HealthCheckNodePort != 0 && !s.ExternalLocal {
			t.Error("a health check node port without the policy Local")
		}
		_ = Check(&in)
	})
}

func FuzzFromSlice(f *testing.F) {
	web, _ := FromService(web(nil), "")
	f.Fuzz(func(t *testing.T, text, node string) {
		var in discoveryv1.EndpointSlice
		if json.Unmarshal([]byte(text), &in) != nil {
			return
		}
		s, _ := FromSlice(&in, node)
		if s == nil {
			return
		}
		for _, p := range s.Ports {
			if p.Port == 0 || !known(p.Protocol) {
				t.Errorf("port %v", p)
			}
		}
		for _, e := range s.Endpoints {
			checkAddr(t, e.Addr)
			if FamilyOf(e.Addr) != s.Family {
				t.Errorf("%v is not of the slice's family", e.Addr)
			}
			if node == "" && e.Local {
				t.Errorf("%v is local on no node", e.Addr)
			}
		}
		s.Service = web.Name
		state := NewState()
		state.SetService(web)
		state.SetSlice(s)
		e := state.Services()[0]
		all := e.Endpoints(nil, &web.Ports[0], s.Family)
		if !slices.IsSortedFunc(all, func(a, b PortEndpoint) int { return a.Addr.Compare(b.Addr) }) {
			t.Errorf("not sorted: %v", all)
		}
		chosen := Select(all, "zone-a")
		if len(chosen.Cluster) > len(all) || len(chosen.Local) > len(all) || e.LocalReady(s.Family) > len(s.Endpoints) {
			t.Errorf("%v of %v", chosen, all)
		}
	})
}

func FuzzFromServiceCIDR(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var in networkingv1.ServiceCIDR
		if json.Unmarshal([]byte(text), &in) != nil {
			return
		}
		s, _ := FromServiceCIDR(&in)
		for _, p := range s.Prefixes {
			checkPrefix(t, p)
			if p.Bits() == 0 {
				t.Errorf("%v holds everything", p)
			}
		}
		var all ServiceCIDRs
		if all.Set(s) != (len(s.Prefixes) > 0) || all.Set(s) || all.Delete(s.Name) != (len(s.Prefixes) > 0) {
			t.Error("a change is not told, or told twice")
		}
		_ = Check(&in)
	})
}

func FuzzFromNode(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		var in corev1.Node
		if json.Unmarshal([]byte(text), &in) != nil {
			return
		}
		n := FromNode(&in)
		for i := range Families {
			if a := n.Addrs[i]; a.IsValid() {
				checkAddr(t, a)
				if FamilyOf(a) != Family(i) {
					t.Errorf("address %v is in the place of the other family", a)
				}
			}
			if p := n.PodCIDRs[i]; p.IsValid() {
				checkPrefix(t, p)
				if FamilyOf(p.Addr()) != Family(i) {
					t.Errorf("%v is in the place of the other family", p)
				}
			}
		}
	})
}

func checkAddr(t *testing.T, a netip.Addr) {
	t.Helper()
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() {
		t.Errorf("%v is no address to send to", a)
	}
}

func checkPrefix(t *testing.T, p netip.Prefix) {
	t.Helper()
	if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() && p.Bits() >= 96 {
		t.Errorf("%v is not masked and unmapped", p)
	}
}

func checkRanges(t *testing.T, f Family, r SourceRanges) {
	t.Helper()
	for _, p := range r.Prefixes {
		checkPrefix(t, p)
		if FamilyOf(p.Addr()) != f {
			t.Errorf("%v is in the place of the other family", p)
		}
	}
	if !slices.Equal(r.Prefixes, Disjoint(r.Prefixes)) {
		t.Errorf("%v are not disjoint", r.Prefixes)
	}
	everybody := len(r.Prefixes) == 1 && r.Prefixes[0].Bits() == 0
	if r.Restricted == everybody && len(r.Prefixes) > 0 {
		t.Errorf("restricted is %v with %v", r.Restricted, r.Prefixes)
	}
}

func checkPorts(t *testing.T, ports []ServicePort) {
	t.Helper()
	for i, p := range ports {
		if p.Port == 0 || !known(p.Protocol) {
			t.Errorf("port %v", p)
		}
		for _, o := range ports[:i] {
			if o.Protocol == p.Protocol && (o.Port == p.Port || o.NodePort == p.NodePort && p.NodePort != 0) {
				t.Errorf("%v and %v are one frontend", o, p)
			}
		}
	}
}

func known(p Protocol) bool { return p == TCP || p == UDP || p == SCTP }
