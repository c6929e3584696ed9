// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"
	"testing"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

func TestDetectLocal(t *testing.T) {
	cluster4, cluster6 := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")
	node4 := netip.MustParsePrefix("10.244.7.0/24")
	node := &model.Node{PodCIDRs: [model.Families]netip.Prefix{node4}}
	cidrs := [model.Families]netip.Prefix{cluster4, cluster6}
	cases := []struct {
		mode   LocalMode
		node   *model.Node
		v4, v6 nft.LocalPods
	}{
		{LocalByClusterCIDR, node, nft.LocalPods{Prefix: cluster4}, nft.LocalPods{Prefix: cluster6}},
		{LocalByClusterCIDR, nil, nft.LocalPods{Prefix: cluster4}, nft.LocalPods{Prefix: cluster6}},
		{LocalByNodeCIDR, node, nft.LocalPods{Prefix: node4}, nft.LocalPods{}},
		{LocalByNodeCIDR, nil, nft.LocalPods{}, nft.LocalPods{}},
		{LocalByBridge, node, nft.LocalPods{Interface: "cni0"}, nft.LocalPods{Interface: "cni0"}},
		{LocalByInterfacePrefix, nil, nft.LocalPods{Interface: "cni0*"}, nft.LocalPods{Interface: "cni0*"}},
	}
	for _, tc := range cases {
		d := DetectLocal{Mode: tc.mode, CIDRs: cidrs, Interface: "cni0"}
		if v4, v6 := d.Pods(nft.IPv4, tc.node), d.Pods(nft.IPv6, tc.node); v4 != tc.v4 || v6 != tc.v6 {
			t.Errorf("%s: %v, %v, want %v, %v", tc.mode, v4, v6, tc.v4, tc.v6)
		}
	}
}
