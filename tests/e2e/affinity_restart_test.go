// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestAffinityRestart: clients stay where they are when the process is killed and
// starts again, and also when it makes the tables anew. Who flushes the tables makes
// clients forgotten, and no more than that (A3.12).
func TestAffinityRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	pods := []*host{c.a, c.b, c.r}
	c.write(t, "web.yaml", withSlices(sticky(everywhere("web", 1), forHours), pods...)...)
	c.write(t, "near.yaml", withSlices(externalLocal(sticky(everywhere("near", 2), forHours)), pods...)...)
	flags := []string{"--cluster-cidr", clusterCIDR}
	c.run(t, flags...)
	everybody := append(c.clients(t, 12), c.node, c.b, c.s)
	at := make(map[string]homes)
	each := func(do func(key, network string, n int, f family)) {
		for n := 1; n <= 2; n++ {
			for _, f := range families {
				for _, network := range networks[:2] {
					do(strings.Join([]string{network, f.String(), string(rune('0' + n))}, " "), network, n, f)
				}
			}
		}
	}
	settle := func() {
		each(func(key, network string, n int, f family) {
			at[key] = c.settle(t, everybody, network, external(n, f)["load balancer IP"], external(n, f)["node port"])
		})
	}
	unmoved := func(t *testing.T) {
		each(func(key, network string, n int, f family) {
			c.unmoved(t, at[key], network, external(n, f)["load balancer IP"], external(n, f)["node port"])
		})
	}
	settle()
	c.restartsQuietly(t, flags...)
	t.Run("A3.12 killed", unmoved)
	for _, more := range [][]string{{"--iptables-masquerade-bit", "7"}, {"--masquerade-all"}, nil} {
		c.proxy.stop(t)
		c.run(t, append(more, flags...)...)
		c.proxy.logs(t, "table replaced")
		t.Run("A3.12 other flags "+strings.Join(more, " "), unmoved)
	}
	t.Run("A3.12 somebody flushes the ruleset", func(t *testing.T) {
		c.Must(c.node.NFT("flush ruleset\n"))
		c.proxy.logs(t, "table is gone")
		c.programmed(t)
		settle()
		unmoved(t)
	})
}

// TestAffinityEdited: whatever becomes of a Service while nobody watches, the next
// start makes good without trouble, and keeps clients where they may be kept. A
// Service that is programmed before all others is there, too (A3.12).
func TestAffinityEdited(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "kubernetes.yaml", withSlices(service("kubernetes", 9, everyProtocol(443)[:1]...), c.r)...)
	plain := func() *corev1.Service { return everywhere("web", 1) }
	web := func() *corev1.Service { return sticky(plain(), forHours) }
	small := func() *corev1.Service { return sticky(service("web", 1, everyProtocol(80)[:2]...), forHours) }
	everywhere, near := []string{"a", "b", "r", "s"}, []string{"a", "b"}
	all := []*host{c.a, c.b, c.r, c.s}
	clients := c.clients(t, 6)
	var at [2]homes
	for _, tt := range []struct {
		name    string
		service *corev1.Service
		pods    []*host
		sticky  bool
		servers []string // of the client through the load balancer
		known   bool     // clients are where they were before
	}{
		{"as it was", web(), all, true, everywhere, false},
		{"the same", web(), all, true, everywhere, true},
		{"external policy Local", externalLocal(web()), all, true, near, false},
		{"internal, too", internalLocal(externalLocal(web())), all, true, near, true},
		{"another timeout", internalLocal(externalLocal(sticky(plain(), 1000))), all, true, near, true},
		{"only internal", internalLocal(web()), all, true, everywhere, false},
		{"neither", web(), all, true, everywhere, true},
		{"external policy Local again", externalLocal(web()), all, true, near, false},
		{"no affinity", externalLocal(plain()), all, false, near, false},
		{"affinity again", web(), all, true, everywhere, false},
		{"no endpoints", web(), nil, false, nil, false},
		{"endpoints again", web(), all[:3], true, everywhere[:3], false},
		{"fewer", web(), all[1:3], true, everywhere[1:3], false},
		{"another", web(), all[1:], true, everywhere[1:], true},
		{"no node ports", withIngress(small(), balancerIP(1)[ip4], balancerIP(1)[ip6]), all[1:], true, everywhere[1:], true},
		{"a ClusterIP alone", small(), all[1:], false, nil, false},
		{"everything again", web(), all[1:], true, everywhere[1:], true},
	} {
		c.write(t, "web.yaml", withSlices(tt.service, tt.pods...)...)
		c.start(t, "--cluster-cidr", clusterCIDR)
		t.Run("A3.12 "+tt.name, func(t *testing.T) {
			c.programmed(t)
			if n := c.proxy.count("level=ERROR") + c.proxy.count("table replaced"); n > 0 {
				t.Errorf("trouble at start:\n%s", c.proxy.tail())
			}
			for _, f := range families {
				dst := external(1, f)["load balancer IP"]
				if tt.servers != nil && !tt.sticky {
					c.served(t, c.client, "tcp", dst, eitherSource, tt.servers...)
				}
				if !tt.sticky {
					continue
				}
				now := c.settle(t, clients, "tcp", dst)
				for from, server := range now {
					if !slices.Contains(tt.servers, server) {
						t.Errorf("%s is at %s, want one of %v", from.addrs[f], server, tt.servers)
					}
				}
				if tt.known && at[f].moved(now) > 0 {
					t.Errorf("%v: %d clients are elsewhere", f, at[f].moved(now))
				}
				at[f] = now
			}
		})
		c.proxy.kill()
	}
}
