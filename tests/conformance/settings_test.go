// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"strings"
	"testing"
)

// TestSettings compares the programs under other settings than the default ones. Each
// takes over from its predecessor, which had others (A1.5, A1.6, A3.8, A3.9, A3.10).
func TestSettings(t *testing.T) {
	t.Parallel()
	w := newTwins(t, defaults)
	both := one(endpoint{pod: "a"}, endpoint{pod: "c"})
	plans := []*plan{
		{name: "settings-any", typ: typeLoadBalancer, external: []string{"own"}, ingress: own, slices: both},
		{name: "settings-etp", typ: typeLoadBalancer, etp: true, external: []string{"own"}, ingress: own, slices: both},
		{name: "settings-etp-remote", typ: typeLoadBalancer, etp: true, external: []string{"own"}, ingress: own, slices: one(endpoint{pod: "c"})},
		{name: "settings-unserved", typ: typeNodePort, slices: one()},
		{name: "settings-externalip-of-node", typ: typeNodePort, external: []string{otherAddrs[0].String(), otherAddrs[1].String()}, slices: both},
	}
	for i, p := range plans {
		p.index = i + 1
		w.write(p)
	}
	for _, tt := range []struct {
		name   string
		change func(*settings)
	}{
		{"node ports everywhere", func(s *settings) { s.nodePortAddresses = "0.0.0.0/0,::/0" }},
		{"node ports by CIDR", func(s *settings) { s.nodePortAddresses = "198.51.100.8/29,2001:db8:1::10/124" }},
		{"node ports by CIDR of one family", func(s *settings) { s.nodePortAddresses = "198.51.100.8/29" }},
		{"node ports nowhere", func(s *settings) { s.nodePortAddresses = "203.0.113.240/28,2001:db8:ffff::/64" }},
		{"masquerade all", func(s *settings) { s.masqueradeAll = true }},
		{"no cluster CIDR", func(s *settings) { s.clusterCIDR = "" }},
		{"cluster CIDR of one family", func(s *settings) { s.clusterCIDR, _, _ = strings.Cut(clusterCIDR, ",") }},
		{"pods by the node's CIDR", func(s *settings) { s.detectLocal = "NodeCIDR" }},
		{"pods by bridge", func(s *settings) { s.detectLocal, s.ofInterface = "BridgeInterface", "pod-a" }},
		{"pods by interface name", func(s *settings) { s.detectLocal, s.ofInterface = "InterfaceNamePrefix", "pod-" }},
		{"localhost", func(s *settings) { s.localhost = true }},
		{"masquerade bit", func(s *settings) { s.masqueradeBit = 31 }},
		{"default", func(s *settings) {}},
	} {
		c := defaults
		tt.change(&c)
		w.restart(c)
		w.report(w.run(matrix(plans)))
		if t.Failed() {
			t.Fatalf("with %s: %+v", tt.name, c)
		}
	}
	checkDifferences(t, plans)
	t.Logf("%d probes", w.probes)
}
