// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/nft"
)

// crowdCIDR are addresses of IPv4 that the client has besides its own.
const crowdCIDR = "10.77.0.0/16"

// crowd lets the client ask from each of 65,536 addresses; it returns one.
func (c *cluster) crowd(t *testing.T) func(i int) *host {
	t.Helper()
	c.Must(
		c.client.IP("route add local "+crowdCIDR+" dev lo"),
		c.node.Route(netip.MustParsePrefix(crowdCIDR), c.client.addrs[ip4]),
	)
	return func(i int) *host {
		return &host{Namespace: c.client.Namespace, addrs: [2]netip.Addr{ip4: crowdAddr(i)}, via: outside, bound: true}
	}
}

func crowdAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)}) }

// remember tells the kernel of the first n of the crowd, as if each had come to an
// endpoint of a Service port: which one, and for how long to remember it.
func (c *cluster) remember(t *testing.T, port string, n int, entry func(int) (to netip.AddrPort, expires time.Duration)) {
	t.Helper()
	var script []byte
	const together = 8192
	for i := range n {
		if i%together == 0 {
			script = fmt.Appendf(script, "add element ip kube-nft KUBE-AFFINITY-%s {\n", port)
		}
		to, expires := entry(i)
		script = fmt.Appendf(script, "%s timeout 3h expires %dms : %s . %d,\n", crowdAddr(i), expires.Milliseconds(), to.Addr(), to.Port())
		if i%together == together-1 || i == n-1 {
			script = append(script, "}\n"...)
		}
	}
	c.Must(c.node.NFT(string(script)))
}

// TestAffinityFull: a Service port remembers 65,536 clients. Those who come then are
// served all the same, and remembered as soon as there is room (A3.12).
func TestAffinityFull(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(sticky(service("web", 1, everyProtocol(80)[:1]...), forHours), c.a, c.b, c.r)...)
	flags := []string{"--cluster-cidr", clusterCIDR}
	c.run(t, flags...)
	member := c.crowd(t)
	const port = "default/web/tcp/tcp"
	servers := []*host{c.a, c.b, c.r}
	c.remember(t, port, nft.AffinitySize, func(i int) (netip.AddrPort, time.Duration) {
		return servers[i%3].at(ip4, targetPort), time.Hour
	})
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	known := func(t *testing.T, gone string) {
		t.Helper()
		for i := 0; i < nft.AffinitySize; i += 5003 {
			want := servers[i%3].Name()
			if want == gone {
				want = ""
			}
			if server := c.stays(t, member(i), "tcp", eitherSource, want, dst); server == gone {
				t.Errorf("%s is at %s, which has left", crowdAddr(i), gone)
			}
		}
	}
	unknown := func(t *testing.T) {
		t.Helper()
		c.served(t, c.client, "tcp", dst, masqueraded, "a", "b", "r")
		c.served(t, c.b, "tcp", dst, eitherSource, "a", "b", "r")
	}
	check := func(name string, full bool) {
		c.programmed(t)
		t.Run("A3.12 "+name, func(t *testing.T) {
			known(t, "")
			if full {
				unknown(t)
			} else {
				c.stays(t, c.client, "tcp", masqueraded, "", dst)
			}
		})
	}
	check("full", true)
	c.proxy.stop(t)
	c.run(t, append(flags, "--iptables-masquerade-bit", "9")...)
	c.proxy.logs(t, "table replaced")
	check("full when the table is made anew", true)
	c.write(t, "web.yaml", withSlices(sticky(service("web", 1, everyProtocol(80)[:1]...), forHours-60), c.a, c.b, c.r)...)
	check("full when the timeout changes", true)
	c.Must(c.node.NFT(fmt.Sprintf("delete element ip kube-nft KUBE-AFFINITY-%s { %s }\n", port, crowdAddr(1))))
	check("there is room again", false)

	c.write(t, "web.yaml", withSlices(sticky(service("web", 1, everyProtocol(80)[:1]...), forHours-60), c.a, c.b)...)
	c.programmed(t)
	t.Run("A3.12 a full endpoint leaves", func(t *testing.T) { known(t, "r") })
	if n := c.proxy.count("level=ERROR"); n > 0 {
		t.Errorf("%d errors in the log", n)
	}
}

// TestAffinityExpiring: an endpoint leaves, or the timeout changes, while one entry
// after the other expires on its own (A3.12).
func TestAffinityExpiring(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	web := func(seconds int32, pods ...*host) {
		c.write(t, "web.yaml", withSlices(sticky(service("web", 1, everyProtocol(80)[:1]...), seconds), pods...)...)
	}
	web(forHours, c.a, c.b)
	c.run(t, "--cluster-cidr", clusterCIDR)
	const clients = 30_000 // one for each millisecond of half a minute
	c.remember(t, "default/web/tcp/tcp", clients, func(i int) (netip.AddrPort, time.Duration) {
		return []*host{c.a, c.b}[i%2].at(ip4, targetPort), time.Duration(500+i) * time.Millisecond
	})
	member := c.crowd(t)
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	for _, step := range []func(){
		func() { web(forHours+1, c.a, c.b) },
		func() { web(forHours+1, c.a, c.b, c.r) },
		func() { web(forHours+1, c.b, c.r) },
	} {
		step()
		c.programmed(t)
	}
	last := clients - 2
	if server := c.stays(t, member(last), "tcp", eitherSource, "", dst); !slices.Contains([]string{"b", "r"}, server) {
		t.Errorf("a client of a is at %s", server)
	}
	c.stays(t, member(last+1), "tcp", eitherSource, "b", dst)
	if n := c.proxy.count("level=ERROR"); n > 0 {
		t.Errorf("%d errors in the log", n)
	}
}
