// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestFromNode(t *testing.T) {
	address := func(kind corev1.NodeAddressType, ip string) corev1.NodeAddress {
		return corev1.NodeAddress{Type: kind, Address: ip}
	}
	addrs := func(v4, v6 string) (out [Families]netip.Addr) {
		for f, s := range []string{v4, v6} {
			if s != "" {
				out[f] = addr(s)
			}
		}
		return out
	}
	cidrs := func(v4, v6 string) (out [Families]netip.Prefix) {
		for f, s := range []string{v4, v6} {
			if s != "" {
				out[f] = netip.MustParsePrefix(s)
			}
		}
		return out
	}
	cases := []struct {
		name string
		in   corev1.Node
		want Node
	}{
		{"nothing", corev1.Node{}, Node{}},
		{"zone", corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelTopologyZone: "a"}}}, Node{Zone: "a"}},
		{"deleted but not gone", corev1.Node{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: time.Unix(1, 0)}}}, Node{Leaving: true}},
		{"to be removed", corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "other"}, {Key: "ToBeDeletedByClusterAutoscaler"}}}}, Node{Leaving: true}},
		{"tainted", corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "node.kubernetes.io/unschedulable"}}}}, Node{}},
		{"internal before external", corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			address(corev1.NodeHostName, "node-0"), address(corev1.NodeExternalIP, "192.0.2.1"), address(corev1.NodeExternalIP, "2001:db8::1"),
			address(corev1.NodeInternalIP, "nonsense"), address(corev1.NodeInternalIP, "10.0.0.1"), address(corev1.NodeInternalIP, "10.0.0.2"),
		}}}, Node{Addrs: addrs("10.0.0.1", "2001:db8::1")}},
		{"pods of one family", corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24"}}},
			Node{PodCIDRs: cidrs("10.244.1.0/24", "")}},
		{"pods of both", corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "fd00:244:1::/64", PodCIDRs: []string{"fd00:244:1::/64", "10.244.1.0/24"}}},
			Node{PodCIDRs: cidrs("10.244.1.0/24", "fd00:244:1::/64")}},
		{"an old object", corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24"}}, Node{PodCIDRs: cidrs("10.244.1.0/24", "")}},
		{"the first of a family", corev1.Node{Spec: corev1.NodeSpec{PodCIDRs: []string{"?", " 10.244.1.7/24 ", "10.244.2.0/24"}}},
			Node{PodCIDRs: cidrs("10.244.1.0/24", "")}},
		{"the list before the one", corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"?"}}}, Node{}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, FromNode(&tc.in), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
