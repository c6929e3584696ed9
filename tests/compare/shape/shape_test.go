// SPDX-License-Identifier: Apache-2.0

package shape

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Shape{
		"1000x10":  {"1000x10", 1000, 10_000},
		"44125x1":  {"44125x1", 44125, 44125},
		"5006x50":  {"5006x50", 5006, 250_011},
		"1x100000": {"1x100000", 1, 100_000},
	} {
		if got, err := Parse(text); got != want || err != nil {
			t.Errorf("Parse(%q) = %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "10", "10x", "10x1x", "0x1", "010x1", "-1x1", "1x-1", "1000000x1", "300000x300", "ten x ten"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", text, got)
		}
	}
	if all, err := ParseAll("1x1, 2x2"); len(all) != 2 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
}

// TestEndpoints: every endpoint is of one Service, and at an address of its own.
func TestEndpoints(t *testing.T) {
	for _, text := range []string{"5006x50", "1x1050", "7x0", "300x1"} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[string]bool)
		next := 0
		for i := range s.Services {
			first, n := s.EndpointsOf(i)
			if first != next {
				t.Fatalf("%s: endpoints of Service %d begin with %d, want %d", text, i, first, next)
			}
			next += n
			for _, slice := range s.Slices(i) {
				if len(slice.Endpoints) > perSlice {
					t.Errorf("%s: a slice of %d", text, len(slice.Endpoints))
				}
				for _, e := range slice.Endpoints {
					seen[e.Addresses[0]] = true
				}
			}
			if at, ok := s.ServiceAt(s.Frontend(i).Addr()); at != i || !ok {
				t.Errorf("ServiceAt(%s) = %d", s.Frontend(i), at)
			}
		}
		if len(seen) != s.Endpoints || next != s.Endpoints {
			t.Errorf("%s: %d addresses for %d endpoints, want %d", text, len(seen), next, s.Endpoints)
		}
		for _, other := range []int{-1, s.Services} {
			if _, ok := s.ServiceAt(plus(firstService, other)); ok {
				t.Errorf("%s: a Service %d", text, other)
			}
		}
	}
}

func TestObjects(t *testing.T) {
	s, _ := Parse("3x250")
	services, slices := 0, 0
	for o := range s.Objects() {
		if _, ok := o.(*discoveryv1.EndpointSlice); ok {
			slices++
		} else {
			services++
		}
		if _, err := encode(o); err != nil {
			t.Error(err)
		}
		if _, err := collection(o); err != nil {
			t.Error(err)
		}
	}
	if services != 3+1+Watched || slices != 9+1+Watched {
		t.Errorf("%d Services, %d EndpointSlices", services, slices)
	}
	if last := Endpoint(limit - 1); !EndpointCIDR.Contains(last) || !last.Less(WatchedEndpoint(0, 0)) {
		t.Errorf("the last endpoint is at %s", last)
	}
}
