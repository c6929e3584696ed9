// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func TestFromServiceCIDR(t *testing.T) {
	cases := []struct {
		name     string
		cidrs    []string
		want     string
		problems []string
	}{
		{"dual stack", []string{"fd00:96::/112", "10.96.0.0/16"}, "fd00:96::/112 10.96.0.0/16", nil},
		{"none", nil, "", nil},
		{"host bits", []string{"10.96.0.1/16"}, "10.96.0.0/16", nil},
		{"mapped", []string{"::ffff:10.96.0.0/112"}, "10.96.0.0/16", nil},
		{"invalid in part", []string{"10.96.0.0", "10.97.0.0/16", ""}, "10.97.0.0/16",
			[]string{`spec.cidrs[0]: "10.96.0.0" is not a CIDR`, `spec.cidrs[2]: ""`}},
		{"everything", []string{"0.0.0.0/0", "::/0"}, "",
			[]string{`spec.cidrs[0]: "0.0.0.0/0" is every address`, `spec.cidrs[1]: "::/0"`}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := FromServiceCIDR(&networkingv1.ServiceCIDR{
				ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: tc.cidrs}})
			want := &ServiceCIDR{Name: "kubernetes", Prefixes: prefixes(tc.want)}
			if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			checkProblems(t, err, tc.problems)
		})
	}
}

// TestServiceCIDRs takes one set of objects through a life.
func TestServiceCIDRs(t *testing.T) {
	var c ServiceCIDRs
	set := func(name, cidrs string) func() bool {
		return func() bool { return c.Set(&ServiceCIDR{Name: name, Prefixes: prefixes(cidrs)}) }
	}
	gone := func(name string) func() bool { return func() bool { return c.Delete(name) } }
	steps := []struct {
		name    string
		do      func() bool
		changed bool
		v4, v6  string
	}{
		{"none to delete", gone("kubernetes"), false, "", ""},
		{"first", set("kubernetes", "10.96.0.0/16 fd00:96::/112"), true, "10.96.0.0/16", "fd00:96::/112"},
		{"again", set("kubernetes", "fd00:96::/112 10.96.0.0/16"), false, "10.96.0.0/16", "fd00:96::/112"},
		{"more", set("more", "10.64.0.0/16"), true, "10.64.0.0/16 10.96.0.0/16", "fd00:96::/112"},
		{"shared", set("shared", "10.64.0.0/16 fd00:96::/112"), false, "10.64.0.0/16 10.96.0.0/16", "fd00:96::/112"},
		{"one of two that share goes", gone("more"), false, "10.64.0.0/16 10.96.0.0/16", "fd00:96::/112"},
		{"around all", set("wide", "10.0.0.0/8"), true, "10.0.0.0/8", "fd00:96::/112"},
		{"the inner goes", gone("kubernetes"), false, "10.0.0.0/8", "fd00:96::/112"},
		{"the outer goes", gone("wide"), true, "10.64.0.0/16", "fd00:96::/112"},
		{"one family less", set("shared", "10.64.0.0/16"), true, "10.64.0.0/16", ""},
		{"last", gone("shared"), true, "", ""},
		{"gone twice", gone("shared"), false, "", ""},
		{"empty", set("empty", ""), false, "", ""},
	}
	for _, step := range steps {
		if changed := step.do(); changed != step.changed {
			t.Errorf("%s: changed %v, want %v", step.name, changed, step.changed)
		}
		if got, want := c.Of(IPv4), prefixes(step.v4); !slices.Equal(got, want) {
			t.Errorf("%s: IPv4 %v, want %v", step.name, got, want)
		}
		if got, want := c.Of(IPv6), prefixes(step.v6); !slices.Equal(got, want) {
			t.Errorf("%s: IPv6 %v, want %v", step.name, got, want)
		}
	}
}

// TestServiceCIDRsProperty: whatever came and went, the outcome is that of the
// objects which are left, and a change is told exactly when it is one.
func TestServiceCIDRsProperty(t *testing.T) {
	universe := prefixes("10.0.0.0/8 10.96.0.0/16 10.97.0.0/16 10.96.4.0/24 fd00::/64 fd00::/112")
	rapid.Check(t, func(t *rapid.T) {
		var c ServiceCIDRs
		left := make(map[string][]netip.Prefix)
		of := func() [Families][]netip.Prefix { return [Families][]netip.Prefix{c.Of(IPv4), c.Of(IPv6)} }
		same := func(a, b [Families][]netip.Prefix) bool { return slices.EqualFunc(a[:], b[:], slices.Equal) }
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			before, changed := of(), false
			if rapid.Bool().Draw(t, "delete") {
				delete(left, name)
				changed = c.Delete(name)
			} else {
				left[name] = rapid.SliceOfN(rapid.SampledFrom(universe), 0, 3).Draw(t, "prefixes")
				changed = c.Set(&ServiceCIDR{Name: name, Prefixes: left[name]})
			}
			if changed == same(before, of()) {
				t.Fatalf("changed is %v, from %v to %v", changed, before, of())
			}
		}
		var fresh ServiceCIDRs
		for name, p := range left {
			fresh.Set(&ServiceCIDR{Name: name, Prefixes: p})
		}
		if want := [Families][]netip.Prefix{fresh.Of(IPv4), fresh.Of(IPv6)}; !same(of(), want) {
			t.Fatalf("%v, want %v of %v", of(), want, left)
		}
	})
}

func TestCheckServiceCIDR(t *testing.T) {
	checkProblems(t, Check(&networkingv1.ServiceCIDR{}), []string{"spec.cidrs: missing"})
	checkProblems(t, Check(&networkingv1.ServiceCIDR{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"ten"}}}), []string{"spec.cidrs[0]: "})
	checkProblems(t, Check(&networkingv1.ServiceCIDR{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}), nil)
}
