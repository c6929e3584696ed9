// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/kube-proxy/config/v1alpha1"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/controller/model"
)

func TestDetectLocal(t *testing.T) {
	t.Parallel()
	v4, v6 := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")
	cluster := func(v4, v6 netip.Prefix) controller.DetectLocal {
		return controller.DetectLocal{Mode: controller.LocalByClusterCIDR, CIDRs: [model.Families]netip.Prefix{v4, v6}}
	}
	none := netip.Prefix{}
	for _, tt := range []struct {
		name, line string
		want       controller.DetectLocal
	}{
		{"nothing", "", cluster(none, none)},
		{"empty mode", "--detect-local-mode= --cluster-cidr=10.244.0.0/16", cluster(v4, none)},
		{"one family", "--cluster-cidr=fd00:10:244::1/48", cluster(none, v6)},
		{"both", "--detect-local-mode=ClusterCIDR --cluster-cidr=fd00:10:244::/48,10.244.0.0/16", cluster(v4, v6)},
		{"flags of other modes", "--cluster-cidr=10.244.0.0/16 --pod-bridge-interface=*", cluster(v4, none)},
		{"node", "--detect-local-mode=NodeCIDR --cluster-cidr=nonsense", controller.DetectLocal{Mode: controller.LocalByNodeCIDR}},
		{"bridge", "--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0 --pod-interface-name-prefix=veth",
			controller.DetectLocal{Mode: controller.LocalByBridge, Interface: "cni0"}},
		{"prefix", "--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth",
			controller.DetectLocal{Mode: controller.LocalByInterfacePrefix, Interface: "veth"}},
		{"longest", "--detect-local-mode=BridgeInterface --pod-bridge-interface=abcdefghijklmno",
			controller.DetectLocal{Mode: controller.LocalByBridge, Interface: "abcdefghijklmno"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := flags(t, tt.line)
			got, err := o.detectLocal(o.fromFlags())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestDetectLocalProblems(t *testing.T) {
	t.Parallel()
	const bridge, prefix = "--pod-bridge-interface: ", "--pod-interface-name-prefix: "
	for _, tt := range []struct {
		name, mode, value string
		want              []string
	}{
		{"unknown mode", "clustercidr", "", []string{`--detect-local-mode: "clustercidr" is none of ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix`}},
		{"no bridge", "BridgeInterface", "", []string{bridge + "missing"}},
		{"no prefix", "InterfaceNamePrefix", "", []string{prefix + "missing"}},
		{"pattern", "InterfaceNamePrefix", "veth*", []string{prefix + `"veth*" has a '*'`}},
		{"too long", "BridgeInterface", "abcdefghijklmnop", []string{bridge + `"abcdefghijklmnop" is longer than 15 bytes`}},
		{"all at once", "BridgeInterface", "a bridge/of a name too long", []string{bridge, bridge + `"a bridge/of a name too long" has a blank`, bridge + `"a bridge/of a name too long" has a '/'`}},
		{"quote", "BridgeInterface", `a"b`, []string{bridge + `"a\"b" has a '"'`}},
		{"CIDRs", "ClusterCIDR", "10.0.0.0/8,ten,10.1.0.0/16", []string{`--cluster-cidr: "ten" is not`, "--cluster-cidr: 10.0.0.0/8 and 10.1.0.0/16 are of one family"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := config.New()
			c.DetectLocalMode, c.ClusterCIDR = v1alpha1.LocalMode(tt.mode), tt.value
			c.DetectLocal.BridgeInterface, c.DetectLocal.InterfaceNamePrefix = tt.value, tt.value
			_, err := (&options{}).detectLocal(c)
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("%d problems, want %d: %q", len(lines), len(tt.want), lines)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("%q, want %q", lines[i], want)
				}
			}
		})
	}
}
