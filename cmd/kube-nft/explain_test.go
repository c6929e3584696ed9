// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
)

// TestParsePacket: how sources and destinations are written.
func TestParsePacket(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to string
		origin   explain.Origin
		at       string
		proto    nft.Proto
	}{
		{"node", "10.96.0.1:80", explain.Node, "10.96.0.1:80", nft.TCP},
		{"outside", "[fd00::1]:53/UDP", explain.Outside, "[fd00::1]:53", nft.UDP},
		{"10.0.0.1", "10.96.0.1:80/sctp", explain.Device, "10.96.0.1:80", nft.SCTP},
		{"::ffff:10.0.0.1", "[::ffff:10.96.0.1]:80", explain.Device, "10.96.0.1:80", nft.TCP},
		{"fe80::1%eth0", "[fd00::1]:80", explain.Device, "[fd00::1]:80", nft.TCP},
	} {
		p, err := parsePacket(tt.from, tt.to)
		if err != nil || p.Origin != tt.origin || p.Destination.String() != tt.at || p.Protocol != tt.proto || p.Source.Zone() != "" {
			t.Errorf("%s to %s: %+v, %v", tt.from, tt.to, p, err)
		}
	}
}

// FuzzExplainArguments: whatever is typed is a packet that can be followed, a Service's
// name, or an error.
func FuzzExplainArguments(f *testing.F) {
	for _, seed := range [][2]string{{"node", "10.96.0.1:80/tcp"}, {"fd00::1%x", "[fd00::2]:53/udp"}, {"default/web", ""}, {"::ffff:1.2.3.4", "1.2.3.4:0"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, from, to string) {
		p, err := parsePacket(from, to)
		if err == nil && (!p.Destination.IsValid() || p.Destination.Port() == 0 || p.Destination.Addr().Is4In6() || p.Protocol == 0 ||
			p.Source.IsValid() != (p.Origin == explain.Device) || p.Source.IsValid() && nft.FamilyOf(p.Source) != nft.FamilyOf(p.Destination.Addr())) {
			t.Errorf("%q to %q: %+v", from, to, p)
		}
		if name, err := parseService(from); err == nil && (name.Namespace == "" || name.Name == "") {
			t.Errorf("%q: %v", from, name)
		}
	})
}
