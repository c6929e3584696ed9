// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"
)

// balancing matches chains that exist for a number of endpoints: they stay.
var balancing = regexp.MustCompile(`chain KUBE-[A-Z-]+-[0-9]+ \{[^}]*\} `)

// TestFeaturesGo: nft can list a table with everything in it, what Services with
// affinity and source ranges brought goes with the last of them, and cleanup takes
// the rest (A1.12, A3.2, A3.12).
func TestFeaturesGo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.Must(c.node.NFT(foreign))
	empty := c.Run(c.node.Namespace, "nft", "list", "ruleset")
	c.write(t, "web.yaml", withSlices(everywhere("web", 1), c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	ruleset := func() string {
		c.barrier = 0 // its port is in the table
		c.programmed(t)
		listed := withoutCounters(c.Run(c.node.Namespace, "nft", "list", "ruleset"))
		return balancing.ReplaceAllString(listed, "")
	}
	before := ruleset()
	clients := c.clients(t, 3)
	for range 2 {
		ranges := []string{"192.168.1.0/24", "fd00:1::/64"}
		c.write(t, "sticky.yaml", withSlices(sticky(allProtocols("sticky", 2), forHours), c.a, c.r)...)
		c.write(t, "ranges.yaml", withSlices(restricted(allProtocols("ranges", 3), ranges...), c.a, c.r)...)
		c.write(t, "all.yaml", withSlices(internalLocal(externalLocal(restricted(sticky(allProtocols("all", 4), forHours), ranges...))), c.a, c.r)...)
		full := ruleset()
		eachWay(t, func(t *testing.T, network string, f family) {
			for _, n := range []int{2, 3, 4} {
				for _, from := range clients {
					for _, dst := range frontends(n, f) {
						if _, err := from.ask(network, dst, patience); err != nil {
							t.Error(err)
						}
					}
				}
			}
		})
		known := c.Run(c.node.Namespace, "nft", "list", "map", "ip", "kube-nft", "KUBE-AFFINITY-default/sticky/tcp/tcp")
		for _, from := range clients {
			if !strings.Contains(known, from.addrs[ip4].String()+" ") {
				t.Errorf("%s is not in\n%s", from.addrs[ip4], known)
			}
		}
		for _, word := range []string{"KUBE-AFFINITY-XLB-default/all/sctp/sctp", "KUBE-LEARN-POSTROUTING", "KUBE-FIREWALL-OUTPUT"} {
			if !strings.Contains(full, word) {
				t.Errorf("%s is not in the ruleset", word)
			}
		}
		for _, file := range []string{"sticky.yaml", "ranges.yaml", "all.yaml"} {
			c.remove(t, file)
		}
		if after := ruleset(); after != before {
			was, is := strings.Split(before, " } "), strings.Split(after, " } ")
			t.Errorf("gone for good:\n%q\nleft over:\n%q", without(was, is), without(is, was))
		}
	}
	c.write(t, "all.yaml", withSlices(restricted(externalLocal(sticky(allProtocols("all", 4), forHours)), "192.168.1.0/24"), c.a)...)
	c.programmed(t)
	c.stays(t, clients[0], "tcp", own, "a", netip.AddrPortFrom(balancerIP(4)[ip4], 80))
	c.proxy.stop(t)
	if log, code := command(t, c.node.Namespace, 0, "cleanup"); code != 0 {
		t.Errorf("cleanup: code %d, %s", code, log)
	}
	if after := c.Run(c.node.Namespace, "nft", "list", "ruleset"); after != empty {
		t.Errorf("before:\n%s\nafter:\n%s", empty, after)
	}
}
