// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// sysctl sets a parameter of the node.
func (c *cluster) sysctl(name, value string) { c.Must(c.node.Sysctl(name, value)) }

// TestDoctorHost: what is wrong with the host itself is found, and packets bear it out
// where they are lost.
func TestDoctorHost(t *testing.T) {
	t.Parallel()
	c := newPatient(t)
	t.Run("forwarding of a family", func(t *testing.T) {
		c.sysctl("net.ipv4.ip_forward", "0")
		c.finds(t, []string{"error forwarding-off"}, "sysctl -w net.ipv4.ip_forward=1")
		c.silent(t, c.client, "tcp", at(1, ip4))
		c.served(t, c.client, "tcp", at(1, ip6), masqueraded, "a")
		c.sysctl("net.ipv4.ip_forward", "1")
		c.sysctl("net.ipv6.conf.all.forwarding", "0")
		c.finds(t, []string{"error forwarding-off"}, "IPv6", "net.ipv6.conf.all.forwarding")
		c.silent(t, c.client, "tcp", at(1, ip6))
		c.Must(c.node.Forward())
	})
	t.Run("forwarding of an interface", func(t *testing.T) {
		c.sysctl("net.ipv4.conf.out.forwarding", "0")
		c.finds(t, []string{"error forwarding-off"}, "come in by out", "sysctl -w net.ipv4.conf.out.forwarding=1")
		c.silent(t, c.client, "tcp", at(1, ip4))
		c.served(t, c.b, "tcp", at(1, ip4), own, "a")
		c.sysctl("net.ipv4.conf.out.forwarding", "1")
	})
	t.Run("route_localnet", func(t *testing.T) {
		c.sysctl("net.ipv4.conf.out.route_localnet", "1")
		c.finds(t, []string{"warning route-localnet"}, "sysctl -w net.ipv4.conf.out.route_localnet=0")
		c.sysctl("net.ipv4.conf.out.route_localnet", "0")
	})
	t.Run("rp_filter", func(t *testing.T) {
		c.sysctl("net.ipv4.conf.out.rp_filter", "1")
		c.finds(t, nil) // nothing has been dropped by it
		stray := netip.MustParseAddr("192.168.2.77")
		c.Must(c.client.Addr("eth0", netip.PrefixFrom(stray, 32)))
		if _, err := c.client.Ask(t.Context(), "tcp", at(2, ip4), netlab.From(stray), netlab.Timeout(brief)); err == nil {
			t.Error("rp_filter lets it pass")
		}
		c.finds(t, []string{"note rp-filter?"}, "sysctl -w net.ipv4.conf.out.rp_filter=2")
		c.sysctl("net.ipv4.conf.out.rp_filter", "0")
		c.Must(c.client.IP("addr del " + stray.String() + "/32 dev eth0"))
	})
	t.Run("connection tracking", func(t *testing.T) {
		c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a") // something is tracked
		full := hostRoot(t, map[string]string{"net/netfilter/nf_conntrack_max": "1"})
		c.findsIn(t, full, "error conntrack-full")
		filling := hostRoot(t, map[string]string{"net/netfilter/nf_conntrack_max": "1000", "net/netfilter/nf_conntrack_count": "900", "net/netfilter/nf_conntrack_buckets": "100"})
		c.findsIn(t, filling, "warning conntrack-filling", "warning conntrack-hash")
		c.findsIn(t, hostRoot(t, map[string]string{"net/netfilter/nf_conntrack_max": "1000", "net/netfilter/nf_conntrack_count": "700", "net/netfilter/nf_conntrack_buckets": "1000"}))
	})
	t.Run("a mark of policy routing", func(t *testing.T) {
		c.Run(c.node.Namespace, "ip", "rule", "add", "fwmark", "0x4000/0x4000", "lookup", "200", "priority", "100")
		c.finds(t, []string{"warning mark-conflict"}, "ip rule 100")
		c.Run(c.node.Namespace, "ip", "rule", "del", "priority", "100")
		c.Run(c.node.Namespace, "ip", "rule", "add", "fwmark", "0x80/0x80", "lookup", "200", "priority", "100")
		c.finds(t, nil)
		c.Run(c.node.Namespace, "ip", "rule", "del", "priority", "100")
	})
	t.Run("a process at a node port", func(t *testing.T) {
		local := c.Serve(c.node.Namespace, "tcp", netip.MustParseAddrPort("127.0.0.1:30080"), "local")
		c.finds(t, nil) // node ports are not served there
		s := c.Serve(c.node.Namespace, "tcp", nodePort(ip4), "shadowed")
		c.finds(t, []string{"warning port-shadowed"}, "192.168.1.1:30080", "the node port of default/web:tcp", "tcp port 30080")
		c.served(t, c.client, "tcp", nodePort(ip4), masqueraded, "a")
		c.Must(s.Close(), local.Close())
	})
	t.Run("ports of outgoing connections", func(t *testing.T) {
		c.sysctl("net.ipv4.ip_local_port_range", "30000 60999")
		c.finds(t, []string{"note port-range"}, "node port 30080", "sysctl -w net.ipv4.ip_local_reserved_ports=30080")
		c.sysctl("net.ipv4.ip_local_reserved_ports", "30000-32767")
		c.finds(t, nil)
		c.sysctl("net.ipv4.ip_local_reserved_ports", "")
		c.sysctl("net.ipv4.ip_local_port_range", "32768 60999")
	})
	t.Run("a subnet of ClusterIPs", func(t *testing.T) {
		c.Must(c.node.Addr("lo", netip.MustParsePrefix("10.96.0.200/24")))
		c.finds(t, []string{"warning address-overlap"}, "interface lo has 10.96.0.200/24", "10.96.0.1")
		c.Must(c.node.IP("addr del 10.96.0.200/24 dev lo"))
	})
	c.finds(t, nil)
}

// findsIn is finds with kernel parameters from somewhere else.
func (c *cluster) findsIn(t *testing.T, root string, want ...string) {
	t.Helper()
	found, _ := c.diagnose(t, "--host-root", root)
	if got := ids(found); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("found %v, want %v", got, want)
	}
}

// TestDoctorTables: what is wrong with our tables, and with who keeps them.
func TestDoctorTables(t *testing.T) {
	t.Parallel()
	c := newPatient(t)
	c.write(t, "sticky.yaml", withSlices(sticky(service("sticky", 4, everyProtocol(80)[:1]...), 3600), c.a)...)
	c.programmed(t)
	c.finds(t, nil)
	c.proxy.stop(t)
	const gone = "error not-running"
	c.finds(t, []string{gone}, "no kube-nft runs in this network namespace")
	for _, tt := range []struct {
		name, script string
		want         []string
		words        []string
		served       bool
	}{
		{name: "a rule more", script: "add rule ip kube-nft KUBE-REJECT drop\n", want: []string{gone, "error table-altered"}, words: []string{"table ip kube-nft", "KUBE-REJECT"}, served: true},
		{name: "dormant", script: "add table ip kube-nft { flags dormant; }\n", want: []string{gone, "error table-dormant"}, words: []string{"nft add table ip kube-nft"}},
		{name: "missing", script: "delete table ip kube-nft\n", want: []string{gone, "error table-missing"}, words: []string{"no IPv4 Service"}},
		{name: "of another version", script: "delete table ip kube-nft\nadd table ip kube-nft { comment \"kube-nft schema 99\"; }\n", want: []string{gone, "warning table-schema"}, words: []string{"99"}},
		{name: "a set almost full", script: "add element ip kube-nft KUBE-NODE-IP { " + manyAddrs(740) + " }\n", want: []string{gone, "note set-filling"}, words: []string{"ip kube-nft KUBE-NODE-IP", "of 768"}, served: true},
		{name: "many clients", script: "add element ip kube-nft KUBE-AFFINITY-default/sticky/tcp/tcp { " + manyClients(nft.AffinitySize*92/100) + " }\n",
			want: []string{gone, "warning affinity-filling"}, words: []string{"default/sticky/tcp", "of 65536"}, served: true},
		{name: "foreign", script: "delete table ip kube-nft\nadd table ip kube-nft { comment \"of somebody\"; }\n", want: []string{gone, "error table-foreign"}, words: []string{"of somebody", "nft delete table ip kube-nft"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c.Must(c.node.NFT(tt.script))
			c.finds(t, tt.want, tt.words...)
			if tt.served {
				c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a")
			} else {
				c.fails(t, c.client, at(1, ip4))
			}
			if tt.name == "dormant" {
				c.Must(c.node.NFT("add table ip kube-nft\n")) // the mend
				c.finds(t, []string{gone})
				c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a")
			}
		})
		if tt.name != "foreign" { // there kube-nft gives up
			c.run(t, "--cluster-cidr", clusterCIDR)
			c.proxy.stop(t)
		}
	}
}

// manyAddrs are addresses of nobody, for a set.
func manyAddrs(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("100.64.%d.%d", i/250, i%250)
	}
	return strings.Join(all, ", ")
}

// manyClients are clients that have met pod a.
func manyClients(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("100.%d.%d.%d : 10.128.0.2 . 8080", 64+i/62500, i/250%250, i%250)
	}
	return strings.Join(all, ", ")
}

// TestDoctorSocket: somebody else has the socket's name.
func TestDoctorSocket(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	squatter := startStranger(t, c.node, "listen")
	squatter.logs(t, "ready")
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.finds(t, []string{"warning socket-taken"}, "another user", "ss -xlp")
}

// TestDoctorWaits: kube-nft runs and waits for its API server, and has no table yet.
func TestDoctorWaits(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	kubeconfig := t.TempDir() + "/kubeconfig"
	text := `{"apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
		"clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}], "users": [{"name": "x", "user": {}}]}`
	if err := os.WriteFile(kubeconfig, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, c.node.Command(t.Context(), program(t), "run", "--kubeconfig", kubeconfig, "--hostname-override", "node-0", "--conntrack-max-per-core", "0"))
	p.logs(t, "starting")
	c.finds(t, []string{"error table-missing", "error table-missing", "warning not-programmed"}, "for node node-0")
}

// TestDoctorBridge: two pods on one bridge reach each other through a Service only if
// what is bridged passes netfilter.
func TestDoctorBridge(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	x, y := &host{Namespace: c.Namespace("x"), via: gateway}, &host{Namespace: c.Namespace("y"), via: gateway}
	x.addrs, y.addrs = both("10.128.5.%d", "fd00:10:128:5::%d", 2), both("10.128.5.%d", "fd00:10:128:5::%d", 3)
	bridge := both("10.128.5.%d", "fd00:10:128:5::%d", 1)
	for _, p := range []*host{x, y} {
		c.Must(netlab.Link(c.node.Namespace, "veth-"+p.Name(), p.Namespace, "eth0"), p.Addr("eth0", wide(p.addrs)...), p.DefaultRoute(bridge[:]...))
	}
	c.Must(c.node.Bridge("pods", "veth-x", "veth-y"), c.node.Addr("pods", wide(bridge)...))
	for f := range families {
		c.Serve(y.Namespace, "tcp", y.at(family(f), targetPort), "y")
	}
	c.write(t, "bridged.yaml", withSlices(service("bridged", 1, everyProtocol(80)[:1]...), y)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.finds(t, nil)
	for f := range families {
		c.served(t, x, "tcp", at(1, family(f)), eitherSource, "y")
	}
	c.sysctl("net.bridge.bridge-nf-call-iptables", "0")
	c.finds(t, []string{"error bridge-netfilter"}, "endpoint 10.128.5.3 is on bridge pods", "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1")
	c.Must(c.node.FlushConntrack())
	c.silent(t, x, "tcp", at(1, ip4))
	c.sysctl("net.bridge.bridge-nf-call-iptables", "1")
	c.sysctl("net.bridge.bridge-nf-call-ip6tables", "0")
	c.finds(t, []string{"error bridge-netfilter"}, "fd00:10:128:5::3")
	c.silent(t, x, "tcp", at(1, ip6))
}

// TestDoctorCommand: what is typed wrongly, and who may not look.
func TestDoctorCommand(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n := c.node.Namespace
	for _, tt := range []struct {
		uid  uint32
		args []string
		code int
		says []string
	}{
		{args: []string{"--ignore", "nonsense"}, code: 2, says: []string{`no finding is called "nonsense"`, "docs/doctor.md"}},
		{args: []string{"-o", "xml"}, code: 2, says: []string{`"xml" is not wide, json or yaml`}},
		{args: []string{"more"}, code: 2, says: []string{"more"}},
		{uid: 65534, code: 1, says: []string{"run as root", "CAP_NET_ADMIN"}},
		{code: 4, says: []string{"ERROR  table-missing", "mend:", "2 errors, 0 warnings, 0 notes"}},
		{args: []string{"-o", "wide"}, code: 4, says: []string{"why:", "object: table ip kube-nft"}},
		{args: []string{"-o", "yaml"}, code: 4, says: []string{"- id: table-missing", "errors: 2", "severity: error"}},
		{args: []string{"--quiet"}, code: 4},
		{args: []string{"--ignore", "table-missing"}, code: 0, says: []string{"nothing to mend"}},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			out, code := command(t, n, tt.uid, append([]string{"doctor"}, tt.args...)...)
			if code != tt.code {
				t.Errorf("code %d, want %d:\n%s", code, tt.code, out)
			}
			for _, s := range tt.says {
				if !strings.Contains(out, s) {
					t.Errorf("does not say %q:\n%s", s, out)
				}
			}
			if len(tt.says) == 0 && out != "" {
				t.Errorf("says %q", out)
			}
		})
	}
}

// TestDoctorChangesNothing: doctor leaves the ruleset as it is, and gets along with
// CAP_NET_ADMIN alone.
func TestDoctorChangesNothing(t *testing.T) {
	t.Parallel()
	c := newPatient(t)
	before := c.Run(c.node.Namespace, "nft", "list", "ruleset")
	cmd := c.node.Command(context.Background(), program(t), "doctor")
	const netAdmin = 12
	cmd.SysProcAttr.AmbientCaps = []uintptr{netAdmin}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	p := startProcess(t, cmd)
	// Of another user kube-nft does not answer, and that is said.
	if code := p.code(t); code != 0 || !strings.Contains(p.log.String(), "nothing to mend") || !strings.Contains(p.log.String(), "NOT CHECKED  whether kube-nft runs") {
		t.Errorf("code %d:\n%s", code, &p.log)
	}
	if after := c.Run(c.node.Namespace, "nft", "list", "ruleset"); after != before {
		t.Errorf("the ruleset has changed:\n%s\n%s", before, after)
	}
}
