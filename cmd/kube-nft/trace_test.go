// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

// TestTraceTargets: what the arguments of trace mean.
func TestTraceTargets(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string // "" is an error
	}{
		{nil, "of any kind"},
		{[]string{"any"}, "of any kind"},
		{[]string{"default/web"}, "to Service default/web"},
		{[]string{"default/web:http"}, "to Service default/web:http"},
		{[]string{"10.0.0.1"}, "of any kind to 10.0.0.1/32"},
		{[]string{"10.0.0.0/8"}, "of any kind to 10.0.0.0/8"},
		{[]string{"10.0.0.1:53/udp"}, "of udp to 10.0.0.1/32 to port 53"},
		{[]string{"10.0.0.0/8/TCP"}, "of tcp to 10.0.0.0/8"},
		{[]string{"[fd00::1]:80"}, "of any kind to fd00::1/128 to port 80"},
		{[]string{"fd00::1/sctp"}, "of sctp to fd00::1/128"},
		{[]string{"fd00::/64"}, "of any kind to fd00::/64"},
		{[]string{"any:443"}, "of any kind to port 443"},
		{[]string{"10.1.0.7", "any:443/tcp"}, "of tcp from 10.1.0.7/32 to port 443"},
		{[]string{"10.1.2.3/16", "any"}, "of any kind from 10.1.0.0/16"},
		{[]string{"web"}, ""},
		{[]string{"10.0.0.1:0"}, ""},
		{[]string{"10.0.0.1:http"}, ""},
		{[]string{"10.0.0.1:80/icmp"}, ""},
		{[]string{"[fd00::1:80"}, ""},
		{[]string{"default/web", "10.0.0.1"}, ""},
		{[]string{"10.0.0.1", "fd00::1"}, ""},
	} {
		target, err := parseTraceTarget(tt.args)
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("%q: %s, want an error", tt.args, target)
		case tt.want != "" && (err != nil || target.String() != tt.want):
			t.Errorf("%q: %s, %v, want %s", tt.args, target, err, tt.want)
		}
	}
}
