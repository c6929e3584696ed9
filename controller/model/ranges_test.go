// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
)

func TestSourceRanges(t *testing.T) {
	const field = "spec.loadBalancerSourceRanges"
	open := SourceRanges{}
	only := func(s string) SourceRanges { return SourceRanges{Restricted: true, Prefixes: prefixes(s)} }
	everybody := func(s string) SourceRanges { return SourceRanges{Prefixes: prefixes(s)} }
	nobody := SourceRanges{Restricted: true}
	cases := []struct {
		name     string
		in       []string
		v4, v6   SourceRanges
		problems []string
	}{
		{"none", nil, open, open, nil},
		{"blank", []string{"", " \t"}, open, open, nil},
		{"both families", []string{"10.0.0.0/8", "2001:db8::/32"}, only("10.0.0.0/8"), only("2001:db8::/32"), nil},
		{"blanks around", []string{" 10.0.0.0/8 ", "\t192.0.2.1/32\n", ""}, only("10.0.0.0/8 192.0.2.1/32"), open, nil},
		{"one inside another", []string{"10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8"}, only("10.0.0.0/8"), open, nil},
		{"host bits", []string{"10.1.2.3/8"}, only("10.0.0.0/8"), open, nil},
		{"mapped", []string{"::ffff:192.0.2.0/120"}, only("192.0.2.0/24"), open, nil},
		{"other family", []string{"2001:db8::/32"}, open, only("2001:db8::/32"), nil},
		{"zero", []string{"10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32"}, everybody("0.0.0.0/0"), only("2001:db8::/32"), nil},
		{"any length zero", []string{"10.0.0.0/0", "::1/0"}, everybody("0.0.0.0/0"), everybody("::/0"), nil},
		{"invalid in part", []string{"10.0.0.0/8", "office", "2001:db8::"}, only("10.0.0.0/8"), open,
			[]string{field + `[1]: "office" is not a CIDR`, field + `[2]: "2001:db8::"`}},
		{"all invalid", []string{" ", "10.0.0.0/33", "fe80::%eth0/64", "010.0.0.0/8"}, nobody, nobody,
			[]string{field + "[1]", field + "[2]", field + "[3]", field + ": no entry is a CIDR, so nobody"}},
	}
	for _, kind := range []corev1.ServiceType{corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeClusterIP} {
		for _, tc := range cases {
			t.Run(string(kind)+"/"+tc.name, func(t *testing.T) {
				got, err := FromService(web(func(s *corev1.Service) {
					s.Spec.Type, s.Spec.LoadBalancerSourceRanges = kind, tc.in
				}), "")
				want := [Families]SourceRanges{tc.v4, tc.v6}
				if d := cmp.Diff(want, got.SourceRanges, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
					t.Errorf("-want +got:\n%s", d)
				}
				checkProblems(t, err, tc.problems)
			})
		}
	}
}

func TestDoubt(t *testing.T) {
	cases := []struct {
		name   string
		ips    []string
		ranges []string
		want   string
	}{
		{"no ranges", []string{"192.0.2.80", "2001:db8::80"}, nil, ""},
		{"no IPs", nil, []string{"10.0.0.0/8"}, ""},
		{"IPs of the same family", []string{"192.0.2.80"}, []string{"10.0.0.0/8"}, ""},
		{"both", []string{"192.0.2.80", "2001:db8::80"}, []string{"10.0.0.0/8", "2001:db8::/32"}, ""},
		{"IPv4 only", []string{"192.0.2.80", "2001:db8::80"}, []string{"10.0.0.0/8"}, "no IPv6 range, so everybody is let in to 2001:db8::80"},
		{"IPv6 only", []string{"192.0.2.80"}, []string{"2001:db8::/32"}, "no IPv4 range, so everybody is let in to 192.0.2.80"},
		{"the other is open on purpose", []string{"192.0.2.80", "2001:db8::80"}, []string{"10.0.0.0/8", "::/0"}, ""},
		{"everybody of one", []string{"192.0.2.80", "2001:db8::80"}, []string{"0.0.0.0/0"}, ""},
		{"nothing valid", []string{"192.0.2.80", "2001:db8::80"}, []string{"office"}, ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := FromService(web(func(s *corev1.Service) {
				s.Spec.LoadBalancerSourceRanges = tc.ranges
				for _, ip := range tc.ips {
					s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
				}
			}), "")
			if got := s.Doubt(); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
				t.Errorf("doubt %q, want %q", got, tc.want)
			}
		})
	}
}
