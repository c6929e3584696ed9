// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestLateAddress: an address that the node gets while kube-nft runs serves node
// ports at once if the configuration covers it, and no longer when it is gone
// (A1.6, F3).
func TestLateAddress(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	late := both("172.17.0.%d", "fd00:17::%d", 1)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR, "--nodeport-addresses", "172.17.0.0/24,fd00:17::/64")
	for _, verb := range []string{"add", "del", "add"} {
		c.Must(c.node.IP(
			fmt.Sprintf("addr %s %s/32 dev lo", verb, late[ip4]),
			fmt.Sprintf("addr %s %s/128 dev lo nodad", verb, late[ip6])))
		for f := range late {
			dst := netip.AddrPortFrom(late[f], 30080)
			c.Eventually(patience, func() error {
				a, err := c.client.ask("tcp", dst, silence)
				switch {
				case verb == "add":
					return err
				case err == nil:
					return fmt.Errorf("%s is still served, by %s", dst, a.Server)
				}
				return nil
			})
		}
	}
}
