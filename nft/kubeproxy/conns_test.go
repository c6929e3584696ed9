// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"net/netip"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestHandOver: what nobody translates stands for what IPVS carries, whose packets no
// rule touches either.
func TestHandOver(t *testing.T) {
	l := netlab.NewT(t)
	n := l.Namespace("node")
	vip := netip.MustParseAddr("10.96.0.10")
	l.Must(n.Addr("lo", netip.PrefixFrom(vip, 32)), n.NFT(`table ip t {
	chain c { type nat hook output priority -100; udp dport 54 dnat to 10.96.0.10:53; }
}`))
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(vip, port) }
	var services []VirtualService
	for _, f := range []Frontend{{nft.IPv4, nft.UDP, vip, 53}, {nft.IPv4, nft.UDP, vip, 54}, {nft.IPv4, nft.TCP, vip, 53}} {
		services = append(services, VirtualService{Frontend: f})
	}
	l.Serve(n, "udp", at(53), "dns")
	l.Serve(n, "tcp", at(53), "dns")
	l.Serve(n, "udp", at(55), "other")
	ask := func(from uint16, network string, proto nft.Proto, to uint16) connection {
		return connection{l.Ask(n, network, at(to), netlab.FromPort(from)).Source, Frontend{nft.IPv4, proto, vip, to}}
	}
	open, silent, over := ask(4001, "udp", nft.UDP, 53), ask(4002, "udp", nft.UDP, 53), ask(4003, "tcp", nft.TCP, 53)
	translated, other := ask(4004, "udp", nft.UDP, 54), ask(4005, "udp", nft.UDP, 55)
	conns := map[connection]bool{open: true, translated: true}
	l.Must(n.Do(func() error { return handOver(t.Context(), services, conns) }))
	if len(conns) != 1 || !conns[open] {
		t.Errorf("carried by IPVS: %v, want %v alone", conns, open)
	}
	tracked := make(map[connection]bool)
	all := []VirtualService{{Frontend: other.to}}
	l.Must(n.Do(func() error {
		return forget(t.Context(), append(all, services...), func(c connection, _ bool) bool {
			tracked[c] = true
			return false
		})
	}))
	for _, c := range []connection{open, silent, over, translated, other} {
		if want := c != silent; tracked[c] != want {
			t.Errorf("%s from %v: tracked %t, want %t", c.to, c.client, !want, want)
		}
	}
}
