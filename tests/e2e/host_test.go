// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// foreign is a ruleset of somebody else.
const foreign = `table inet somebody {
	set friends {
		type ipv4_addr
		elements = { 192.0.2.1, 192.0.2.2 }
	}
	chain forward {
		type filter hook forward priority 10; policy accept;
		ip saddr @friends counter accept
	}
}
table ip kube-proxy {
	chain services {
	}
}
`

// TestNotRoot: without privileges the error says what to do.
func TestNotRoot(t *testing.T) {
	t.Parallel()
	if data, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(data))[2] == "1" {
		t.Skip("there is no other user in this user namespace")
	}
	l := netlab.NewT(t)
	n, dir := l.Namespace("node"), manifestDir(t)
	for _, args := range [][]string{{"run", "--manifests", dir}, {"cleanup"}} {
		log, code := command(t, n, 65534, args...)
		if code != 1 || !strings.Contains(log, "run as root") || !strings.Contains(log, "CAP_NET_ADMIN") {
			t.Errorf("%v: code %d, %s", args, code, log)
		}
		if n := strings.Count(log, "\n"); n != 1 {
			t.Errorf("%v: %d lines instead of one: %s", args, n, log)
		}
	}
	if ruleset := l.Run(n, "nft", "list", "ruleset"); ruleset != "" {
		t.Errorf("there is a ruleset:\n%s", ruleset)
	}
}

// TestForeignTable: a table of our name that is not ours is left alone.
func TestForeignTable(t *testing.T) {
	t.Parallel()
	for _, f := range nft.Families {
		for _, comment := range []string{"", `comment "mine, keep out"`} {
			t.Run(fmt.Sprint(f, " ", comment), func(t *testing.T) {
				t.Parallel()
				l := netlab.NewT(t)
				n, dir := l.Namespace("node"), manifestDir(t)
				l.Must(n.NFT(fmt.Sprintf("table %s kube-nft {\n%s\nchain c {\naccept\n}\n}\n", f, comment)))
				before := l.Run(n, "nft", "list", "table", f.String(), "kube-nft")
				for _, args := range [][]string{{"run", "--manifests", dir}, {"cleanup"}} {
					log, code := command(t, n, 0, args...)
					mend := fmt.Sprintf("nft delete table %s kube-nft", f)
					if code != 1 || !strings.Contains(log, "not made by kube-nft") || !strings.Contains(log, mend) {
						t.Errorf("%v: code %d, %s", args, code, log)
					}
				}
				if after := l.Run(n, "nft", "list", "table", f.String(), "kube-nft"); after != before {
					t.Errorf("the table was touched:\n%s", after)
				}
			})
		}
	}
}

// TestOldTable: a table of ours with another schema, or with rules that somebody
// changed, is replaced.
func TestOldTable(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a)...)
	for _, f := range nft.Families {
		c.Must(c.node.NFT(fmt.Sprintf(`table %s kube-nft {
	comment %q
	chain old {
		type filter hook forward priority 0; policy drop;
	}
}
`, f, nft.Comment(nft.Version+1))))
	}
	served := func(t *testing.T, sees seen) {
		c.programmed(t)
		eachWay(t, func(t *testing.T, network string, f family) {
			c.served(t, c.client, network, netip.AddrPortFrom(clusterIP(1)[f], 80), sees, "a")
		})
	}
	c.start(t)
	t.Run("another version", func(t *testing.T) { served(t, own) })
	c.proxy.logs(t, "replac", "schema")
	c.proxy.stop(t)
	c.start(t, "--masquerade-all", "--iptables-masquerade-bit", "7")
	t.Run("another configuration", func(t *testing.T) { served(t, masqueraded) })
}

// TestCleanup: after cleanup the host is as it was before (F10).
func TestCleanup(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.Must(c.node.NFT(foreign))
	before := c.Run(c.node.Namespace, "nft", "list", "ruleset")
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[ip4], 80), masqueraded, "a")
	if log, code := command(t, c.node.Namespace, 0, "cleanup"); code != 1 || !strings.Contains(log, "stop it first") {
		t.Errorf("cleanup beside a kube-nft that runs: code %d, %s", code, log)
	}
	c.proxy.stop(t)
	// What is programmed stays until then.
	c.served(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[ip6], 80), masqueraded, "a")
	for range 2 {
		if log, code := command(t, c.node.Namespace, 0, "cleanup"); code != 0 {
			t.Errorf("cleanup: code %d, %s", code, log)
		}
		if after := c.Run(c.node.Namespace, "nft", "list", "ruleset"); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
	c.silent(t, c.client, "tcp", netip.AddrPortFrom(clusterIP(1)[ip4], 80))
}

// TestDrift: what somebody else does to our tables is repaired within a second,
// and logged.
func TestDrift(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a, c.r)...)
	c.write(t, "idle.yaml", service("idle", 2, everyProtocol(80)...))
	c.run(t, "--cluster-cidr", clusterCIDR)
	healthy := func(within time.Duration) error {
		for _, network := range networks {
			for f := range families {
				for _, dst := range []netip.AddrPort{netip.AddrPortFrom(clusterIP(1)[f], 80), netip.AddrPortFrom(outside[f], 30080)} {
					if _, err := c.client.ask(network, dst, within); err != nil {
						return err
					}
				}
				_, err := c.client.ask(network, netip.AddrPortFrom(clusterIP(2)[f], 80), within)
				if !errors.Is(err, netlab.ErrRefused) {
					return fmt.Errorf("without endpoints: %w", err)
				}
			}
		}
		return nil
	}
	c.Must(healthy(patience))
	for _, tt := range []struct{ name, script string }{
		{"an element is deleted", "delete element ip kube-nft KUBE-SERVICES { 10.96.0.1 . tcp . 80 }"},
		{"an endpoint is deleted", "delete element ip6 kube-nft KUBE-SEP { fd00:10:96::1 . udp . 80 . 0 }"},
		{"refusals are flushed", "flush map ip kube-nft KUBE-NO-ENDPOINTS\nflush map ip6 kube-nft KUBE-NO-ENDPOINTS"},
		{"a rule is added", "insert rule ip kube-nft KUBE-SERVICES drop"},
		{"a chain is flushed", "flush chain ip6 kube-nft KUBE-SERVICES"},
		{"a table sleeps", "add table ip kube-nft { flags dormant; }"},
		{"a table is deleted", "delete table ip6 kube-nft"},
		{"both are deleted", "delete table ip kube-nft\ndelete table ip6 kube-nft"},
		{"the ruleset is flushed", "flush ruleset"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			time.Sleep(1100 * time.Millisecond) // repairs one after the other wait longer
			mended := c.proxy.count("changed by somebody else")
			// nft 1.0.6 numbers slots in its own byte order; zero is zero.
			if err := c.node.NFT(tt.script + "\n"); err != nil {
				t.Fatal(err)
			}
			begin, broken := time.Now(), time.Duration(0)
			if err := netlab.Poll(10*time.Second, func() error {
				err := healthy(100 * time.Millisecond)
				if err != nil {
					broken = time.Since(begin)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if broken > time.Second {
				t.Errorf("not repaired after %v", broken)
			}
			// What nobody is hurt by may be put right a moment later.
			c.Eventually(patience, func() error {
				if c.proxy.count("changed by somebody else") == mended {
					return errors.New("nothing was logged")
				}
				return nil
			})
			c.programmed(t)
			c.Must(healthy(patience))
		})
	}
	if c.proxy.count("level=WARN", "changed by somebody else") == 0 {
		t.Error("nobody was warned") // who goes on is told so once, and of each repair no more
	}
}

// TestOtherFirewall: what another table drops stays dropped, translated or not; no
// rule here accepts on its behalf (A3.14), nor drops what conntrack finds invalid (A4.8).
func TestOtherFirewall(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	check := func(name string, dropped bool) {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, network string, f family) {
				if dst := netip.AddrPortFrom(clusterIP(1)[f], 80); dropped {
					c.silent(t, c.client, network, dst)
				} else {
					c.served(t, c.client, network, dst, masqueraded, "a")
				}
			})
		})
	}
	check("A3.14 alone", false)
	for _, priority := range []int{-1, 1} { // before and after ours
		c.Must(c.node.NFT(fmt.Sprintf("table inet firewall { chain forward { type filter hook forward priority %d; policy drop; }; }", priority)))
		check(fmt.Sprintf("A3.14 beside a firewall at priority %d", priority), true)
		c.Must(c.node.NFT("delete table inet firewall"))
	}
	check("A3.14 alone again", false)
	if ruleset, err := c.node.Ruleset(); err != nil || strings.Contains(ruleset, "invalid") {
		t.Errorf("there is a rule about invalid packets, %v:\n%s", err, ruleset)
	}
}
