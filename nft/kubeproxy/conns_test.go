// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"net/netip"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/conntrack"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestHandOver: what nobody translates stands for what IPVS carries, whose packets no
// rule touches either.
func TestHandOver(t *testing.T) {
	l := netlab.NewT(t)
	n := l.Namespace("node")
	vip := netip.MustParseAddr("10.96.0.10")
	l.Must(n.Addr("lo", netip.PrefixFrom(vip, 32)), n.NFT(`table ip t {
	chain c { type nat hook output priority -100; meta l4proto { tcp, udp } th dport 54 dnat to 10.96.0.10:53; }
}`))
	var services []VirtualService
	for _, port := range []uint16{53, 54} {
		for _, proto := range []nft.Proto{nft.UDP, nft.TCP} {
			services = append(services, VirtualService{Frontend: Frontend{nft.IPv4, proto, vip, port}})
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		l.Serve(n, network, netip.AddrPortFrom(vip, 53), "dns")
	}
	l.Serve(n, "udp", netip.AddrPortFrom(vip, 55), "other")
	tests := []struct {
		about             string
		proto             nft.Proto
		port              uint16
		stays             bool // the connection, until it is looked at
		ipvs              string
		needed, forgotten bool
	}{
		{about: "UDP through IPVS", proto: nft.UDP, port: 53, ipvs: "open", needed: true},
		{about: "silent UDP through IPVS", proto: nft.UDP, port: 53, ipvs: "over", forgotten: true},
		{about: "UDP that IPVS has forgotten", proto: nft.UDP, port: 53, forgotten: true},
		{about: "UDP of another proxy, in IPVS's eyes its own", proto: nft.UDP, port: 54, ipvs: "open"},
		{about: "UDP to somebody else", proto: nft.UDP, port: 55},
		{about: "TCP through IPVS", proto: nft.TCP, port: 53, stays: true, ipvs: "open", needed: true},
		{about: "TCP through IPVS that it misjudges", proto: nft.TCP, port: 53, stays: true, ipvs: "over", needed: true},
		{about: "TCP that is over", proto: nft.TCP, port: 53, ipvs: "over"},
		{about: "TCP of another proxy, in IPVS's eyes its own", proto: nft.TCP, port: 54, ipvs: "open"},
		{about: "open TCP of another proxy, which would end with IPVS's", proto: nft.TCP, port: 54, stays: true, ipvs: "over", needed: true},
		{about: "open TCP of another proxy", proto: nft.TCP, port: 54, stays: true},
	}
	all := make([]connection, len(tests))
	conns := make(map[connection]bool)
	for i, tt := range tests {
		to := netip.AddrPortFrom(vip, tt.port)
		from := netlab.FromPort(uint16(4000 + i))
		if tt.stays {
			conn, err := n.Dial(t.Context(), tt.proto.String(), to, from)
			l.Must(err)
			defer conn.Close()
			_, err = conn.Ask(t.Context())
			l.Must(err)
		} else {
			l.Ask(n, tt.proto.String(), to, from)
		}
		all[i] = connection{netip.AddrPortFrom(vip, uint16(4000+i)), Frontend{nft.IPv4, tt.proto, vip, tt.port}}
		if tt.ipvs != "" {
			conns[all[i]] = tt.ipvs == "open"
		}
	}
	tracked := make(map[connection]bool)
	l.Must(n.Do(func() error { return handOver(t.Context(), services, conns) }), n.Do(func() error {
		services := append(services, VirtualService{Frontend: Frontend{nft.IPv4, nft.UDP, vip, 55}})
		return forget(t.Context(), services, func(c connection, _ *conntrack.Entry) bool {
			tracked[c] = true
			return false
		})
	}))
	for i, tt := range tests {
		if c := all[i]; conns[c] != tt.needed || tracked[c] == tt.forgotten {
			t.Errorf("%s: needed %t, forgotten %t, want %t, %t", tt.about, conns[c], !tracked[c], tt.needed, tt.forgotten)
		}
	}
}
