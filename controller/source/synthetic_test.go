// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
)

func TestSyntheticFirstServices(t *testing.T) {
	t.Parallel()
	s := &Synthetic{Services: 3, Endpoints: 2, DualStack: true}
	api, dns, other := s.Service(0), s.Service(1), s.Service(2)
	if nameOf(api).String() != "default/kubernetes" || api.Spec.ClusterIP != "10.64.0.1" || api.Spec.Ports[0].Port != 443 {
		t.Errorf("%v", api)
	}
	if nameOf(dns).String() != "kube-system/kube-dns" || len(dns.Spec.Ports) != 2 ||
		dns.Spec.Ports[0].Protocol != corev1.ProtocolUDP || dns.Spec.Ports[1].Protocol != corev1.ProtocolTCP {
		t.Errorf("%v", dns)
	}
	if diff := cmp.Diff([]string{"10.64.0.18", "fd00:10:64::12"}, other.Spec.ClusterIPs); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if diff := cmp.Diff(s.Slices(1), s.Slices(1)); diff != "" {
		t.Errorf("not deterministic:\n%s", diff)
	}
	if slices := s.Slices(1); len(slices) != 2 || *slices[0].Ports[1].Name != "dns-tcp" || len(slices[1].Endpoints) != 2 {
		t.Errorf("%v", slices)
	}
}

// TestSyntheticUnique checks that no address or node port is given twice.
func TestSyntheticUnique(t *testing.T) {
	t.Parallel()
	for _, s := range []*Synthetic{
		{Services: 200_000, NodePorts: 0.1, LoadBalancers: 0.2, ExternalIPs: 0.3, DualStack: true},
		{Services: 2000, Endpoints: 30, NodePorts: 1, Ports: 3},
		{Services: 1, Endpoints: 100_000, DualStack: true},
	} {
		if err := s.Validate(); err != nil {
			t.Fatal(err)
		}
		seen := map[any]string{}
		claim := func(key any, owner string) {
			if before, ok := seen[key]; ok {
				t.Fatalf("%v is given to %s and %s", key, before, owner)
			}
			seen[key] = owner
		}
		endpoints := 0
		for i := range s.Services {
			svc := s.Service(i)
			owner := nameOf(svc).String()
			for _, ip := range append(append([]string{}, svc.Spec.ClusterIPs...), svc.Spec.ExternalIPs...) {
				claim(netip.MustParseAddr(ip), owner)
			}
			for _, in := range svc.Status.LoadBalancer.Ingress {
				claim(netip.MustParseAddr(in.IP), owner)
			}
			for _, p := range svc.Spec.Ports {
				if p.NodePort != 0 {
					claim(p.NodePort, owner)
				}
			}
			for _, slice := range s.Slices(i) {
				if len(slice.Endpoints) > 100 {
					t.Fatalf("%d endpoints in a slice", len(slice.Endpoints))
				}
				for _, e := range slice.Endpoints {
					endpoints++
					addr := netip.MustParseAddr(e.Addresses[0])
					if !podRange4.Contains(addr) && !podRange6.Contains(addr) {
						t.Fatalf("%s is not in the pods' range", addr)
					}
					claim(addr, slice.Name)
				}
			}
		}
		if want := s.Services * s.Endpoints * len(s.families()); endpoints != want {
			t.Errorf("%d endpoints, want %d", endpoints, want)
		}
	}
}

func TestSyntheticFractions(t *testing.T) {
	t.Parallel()
	s := &Synthetic{Services: 1002, NodePorts: 0.5, LoadBalancers: 0.1, ExternalIPs: 0.2, Affinity: 0.3, LocalPolicy: 1}
	counts := map[string]int{}
	for i := 2; i < s.Services; i++ {
		svc := s.Service(i)
		counts[string(svc.Spec.Type)]++
		counts["external"] += len(svc.Spec.ExternalIPs)
		if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
			counts["affinity"]++
		}
		if *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal {
			counts["local"]++
		}
	}
	want := map[string]int{"LoadBalancer": 100, "NodePort": 400, "ClusterIP": 500, "external": 200, "affinity": 300, "local": 1000}
	for name, n := range want {
		if got := counts[name]; got < n-2 || got > n+2 {
			t.Errorf("%s: %d, want about %d", name, got, n)
		}
	}
}

func TestSyntheticValidate(t *testing.T) {
	t.Parallel()
	bad := &Synthetic{Services: 1 << 20, Endpoints: 5, Ports: -1, Affinity: 2}
	err := bad.Validate()
	for _, part := range []string{"negative", "endpoints", "services", "fraction"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("no word about %s: %v", part, err)
		}
	}
	if err := bad.Run(t.Context(), newRecorder()); err == nil {
		t.Error("Run: no error")
	}
}

func TestSyntheticRun(t *testing.T) {
	t.Parallel()
	s := &Synthetic{Services: 5, Endpoints: 150, DualStack: true, Churn: 1000}
	sink := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, sink) }()
	sink.await(t, "set node node-0", "synced", "set service default/kubernetes", "set slice default/svc-4-v6-1")
	sink.take()
	eventually(t, func() error {
		sink.mu.Lock()
		defer sink.mu.Unlock()
		if n := len(sink.told); n < 100 {
			return fmt.Errorf("%d changes", n)
		}
		return nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(sink.names()); n != 1+5+5*2*2 {
		t.Errorf("%d objects", n)
	}
}

// TestChurn checks that churn changes one endpoint at a time and repeats itself.
func TestChurn(t *testing.T) {
	t.Parallel()
	s := &Synthetic{Services: 3, Endpoints: 120, Seed: 7}
	a, b := newRecorder(), newRecorder()
	ca, cb := newChurn(s), newChurn(s)
	for i := range s.Services {
		for _, slice := range s.Slices(i) {
			a.SetSlice(slice)
			b.SetSlice(slice)
		}
	}
	addresses := func(r *recorder) map[string]bool {
		all := map[string]bool{}
		for _, slice := range r.slices {
			for _, e := range slice.Endpoints {
				if all[e.Addresses[0]] {
					t.Fatalf("%s is there twice", e.Addresses[0])
				}
				all[e.Addresses[0]] = true
			}
		}
		return all
	}
	before := addresses(a)
	for range 500 {
		ca.step(a)
		cb.step(b)
		after := addresses(a)
		changed := 0
		for addr := range after {
			if !before[addr] {
				changed++
			}
		}
		if lost := len(before) + changed - len(after); changed > 1 || lost > 1 || changed+lost == 0 {
			t.Fatalf("one step: %d came, %d went", changed, lost)
		}
		before = after
	}
	if diff := cmp.Diff(a.slices, b.slices); diff != "" {
		t.Errorf("not deterministic:\n%s", diff)
	}
}

// TestEvents checks that sequences repeat themselves, keep out of each other's
// objects and bring about the collisions that they are for.
func TestEvents(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		var first []Event
		var text []string
		for e := range Events(seed, 100) {
			first = append(first, e)
			text = append(text, e.String())
		}
		i := 0
		for e := range Events(seed, 100) {
			if e.String() != text[i] || first[i].String() != text[i] {
				t.Fatalf("event %d changed:\n%s\n%s", i, text[i], e)
			}
			i++
		}
		a, b := newRecorder(), newRecorder()
		for _, e := range first {
			e.Apply(a)
			e.Apply(b)
		}
		if diff := cmp.Diff(a.services, b.services); diff != "" {
			t.Fatalf("an event cannot be applied twice:\n%s", diff)
		}
		for name, s := range a.services {
			if s == b.services[name] {
				t.Fatalf("%s is shared", name)
			}
		}
	})
}

func TestEventsCollide(t *testing.T) {
	t.Parallel()
	sink := newRecorder()
	found := map[string]bool{}
	for e := range Events(1, 5000) {
		e.Apply(sink)
		owners := map[string]map[string]bool{}
		claim := func(key, owner string) {
			if owners[key] == nil {
				owners[key] = map[string]bool{}
			}
			owners[key][owner] = true
			if len(owners[key]) > 1 {
				found[strings.Fields(key)[0]] = true
			}
		}
		for name, s := range sink.services {
			found[string(s.Spec.Type)] = true
			for _, p := range s.Spec.Ports {
				for _, ip := range s.Spec.ClusterIPs {
					claim("clusterIP "+ip+string(p.Protocol)+string(rune(p.Port)), name.String())
				}
				for _, ip := range s.Spec.ExternalIPs {
					claim("externalIP "+ip+string(p.Protocol)+string(rune(p.Port)), name.String())
				}
				if p.NodePort != 0 {
					claim("nodePort "+string(p.Protocol)+string(rune(p.NodePort)), name.String())
				}
			}
			for _, in := range s.Status.LoadBalancer.Ingress {
				claim("ingress "+in.IP, name.String())
			}
		}
		for name, s := range sink.slices {
			found[string(s.AddressType)] = true
			for _, e := range s.Endpoints {
				claim("endpoint "+e.Addresses[0]+" "+s.Labels["kubernetes.io/service-name"], name.String())
			}
		}
		for name, c := range sink.cidrs {
			for _, cidr := range c.Spec.CIDRs {
				claim("serviceCIDR "+cidr, name)
			}
		}
	}
	want := map[string]bool{"clusterIP": true, "externalIP": true, "nodePort": true, "ingress": true, "endpoint": true, "serviceCIDR": true,
		"IPv4": true, "IPv6": true, "ClusterIP": true, "NodePort": true, "LoadBalancer": true}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func BenchmarkSynthetic(b *testing.B) {
	s := &Synthetic{Services: 1000, Endpoints: 10}
	b.ReportAllocs()
	start := time.Now()
	for b.Loop() {
		for i := range s.Services {
			s.Service(i)
			s.Slices(i)
		}
	}
	b.ReportMetric(float64(b.N*s.Services*s.Endpoints)/time.Since(start).Seconds(), "endpoints/s")
}
