// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// Special Services are where no shape has addresses, and those of the policy Local have
// endpoints on each of the nodes.
func TestSpecial(t *testing.T) {
	big, err := shape.Parse("300000x10")
	if err != nil {
		t.Fatal(err)
	}
	hosts := make(map[string]int)
	for o := range special([]*site.Node{{Name: "node-4"}, {Name: "node-5"}}) {
		switch o := o.(type) {
		case *corev1.Service:
			addr := netip.MustParseAddr(o.Spec.ClusterIP)
			if _, taken := big.ServiceAt(addr); taken || !shape.ServiceCIDR.Contains(addr) {
				t.Errorf("%s is at %s", o.Name, addr)
			}
		case *discoveryv1.EndpointSlice:
			for _, e := range o.Endpoints {
				if addr := netip.MustParseAddr(e.Addresses[0]); !shape.EndpointCIDR.Contains(addr) {
					t.Errorf("%s has an endpoint at %s", o.Name, addr)
				}
				hosts[*e.NodeName]++
			}
		}
	}
	if hosts["node-4"] != specialEndpoints || hosts["node-5"] != specialEndpoints {
		t.Errorf("endpoints on %v", hosts)
	}
}
