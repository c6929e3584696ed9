// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// FuzzNodePorts reads any words as where node ports are served: never on loopback, by
// which neighbours would get in, and only on addresses that somebody named.
func FuzzNodePorts(f *testing.F) {
	for _, words := range []string{"primary", "all", "localhost", "primary,localhost,192.0.2.0/24", "0.0.0.0/0,::/0", "127.0.0.0/8,::1/128", "10.0.0.0/8, ::ffff:10.0.0.0/104", "", "1.2.3.4/33"} {
		f.Add(words)
	}
	var node model.Node
	var local []netip.Addr
	for i, a := range []string{"192.0.2.1", "2001:db8::1", "127.0.0.1", "::1", "10.1.2.3", "fe80::1"} {
		local = append(local, netip.MustParseAddr(a))
		if i < len(node.Addrs) {
			node.Addrs[i] = local[i]
		}
	}
	f.Fuzz(func(t *testing.T, words string) {
		n, err := ParseNodePorts(strings.Split(words, ","))
		if err != nil {
			return
		}
		addrs := n.Addrs(&node, local)
		for i, a := range addrs {
			if a.IsLoopback() || !slices.Contains(local, a) || slices.Contains(addrs[:i], a) {
				t.Errorf("%q serves on %v", words, addrs)
			}
			if n.OnlyLoopback() {
				t.Errorf("%q is loopback alone, and serves on %v", words, addrs)
			}
		}
		for _, p := range n.CIDRs {
			if !p.IsValid() || p != p.Masked() {
				t.Errorf("%q names %v", words, p)
			}
		}
		if n.All(nft.IPv4) && n.OnlyLoopback() && !slices.Contains(n.CIDRs, loopback6) {
			t.Errorf("%q is everywhere and nowhere", words)
		}
	})
}
