// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestHealStop: who is told to stop while a repair waits makes it first. The tables
// serve on.
func TestHealStop(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for range 8 { // each is answered, and the next one later
		c.Must(c.node.NFT("flush ruleset\n"))
		time.Sleep(60 * time.Millisecond)
	}
	c.Must(c.node.NFT("flush ruleset\n"))
	time.Sleep(20 * time.Millisecond) // heard of, and not answered
	c.proxy.stop(t)
	if rules := c.Run(c.node.Namespace, "nft", "list", "tables"); !strings.Contains(rules, "ip kube-nft") || !strings.Contains(rules, "ip6 kube-nft") {
		t.Fatalf("tables that are left: %q", rules)
	}
	c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[ip4], 80), masqueraded, "a")
}
