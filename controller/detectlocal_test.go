// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"
	"testing"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

func TestDetectLocalCIDR(t *testing.T) {
	cluster4, cluster6 := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")
	node4, none := netip.MustParsePrefix("10.244.7.0/24"), netip.Prefix{}
	node := &model.Node{PodCIDRs: [model.Families]netip.Prefix{node4, none}}
	cidrs := [model.Families]netip.Prefix{cluster4, cluster6}
	cases := []struct {
		mode   LocalMode
		node   *model.Node
		v4, v6 netip.Prefix
	}{
		{LocalByClusterCIDR, node, cluster4, cluster6},
		{LocalByClusterCIDR, nil, cluster4, cluster6},
		{LocalByNodeCIDR, node, node4, none},
		{LocalByNodeCIDR, nil, none, none},
		{LocalByBridge, node, none, none},
		{LocalByInterfacePrefix, node, none, none},
	}
	for _, tc := range cases {
		d := DetectLocal{Mode: tc.mode, CIDRs: cidrs, Interface: "cni0"}
		if v4, v6 := d.CIDR(nft.IPv4, tc.node), d.CIDR(nft.IPv6, tc.node); v4 != tc.v4 || v6 != tc.v6 {
			t.Errorf("%s: %v, %v, want %v, %v", tc.mode, v4, v6, tc.v4, tc.v6)
		}
	}
}
