// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// finding is one of `kube-nft doctor -o json`.
type finding struct {
	ID, Severity, Object, What, Why, Mend string
	Likely                                bool
}

// diagnose runs doctor on the node, and returns what it finds and its exit code. That
// the node is not the machine, and may not see its processes, is said every time.
func (c *cluster) diagnose(t *testing.T, flags ...string) (found []finding, code int) {
	t.Helper()
	out, code := command(t, c.node.Namespace, 0, append([]string{"doctor", "-o", "json"}, flags...)...)
	var report struct {
		Findings  []finding
		Unchecked []struct{ What, Why string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("code %d, %v:\n%s", code, err, out)
	}
	for _, gap := range report.Unchecked {
		if !strings.HasPrefix(gap.What, "processes outside of this container") && gap.What != "the host's own network namespace" {
			t.Errorf("not checked: %s: %s", gap.What, gap.Why)
		}
	}
	return report.Findings, code
}

// ids lists findings shortly: severity and kind, with a question mark if likely.
func ids(found []finding) (all []string) {
	for _, f := range found {
		id := f.Severity + " " + f.ID
		if f.Likely {
			id += "?"
		}
		all = append(all, id)
	}
	return all
}

// finds checks that doctor finds just this on the node, and that each finding says
// what is in words, somewhere.
func (c *cluster) finds(t *testing.T, want []string, words ...string) {
	t.Helper()
	found, code := c.diagnose(t)
	if diff := cmp.Diff(want, ids(found)); diff != "" {
		t.Errorf("-want +got\n%s%+v", diff, found)
	}
	wantCode := 0
	for severity, code := range map[string]int{"warning": 3, "error": 4} {
		if slices.ContainsFunc(want, func(s string) bool { return strings.HasPrefix(s, severity) }) {
			wantCode = max(wantCode, code)
		}
	}
	if code != wantCode {
		t.Errorf("exit code %d, want %d", code, wantCode)
	}
	for _, f := range found {
		if f.What == "" || f.Why == "" || f.Mend == "" || f.Object == "" {
			t.Errorf("finding says too little: %+v", f)
		}
	}
	all := fmt.Sprintf("%+v", found)
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("no finding says %q: %s", w, all)
		}
	}
}

// lines breaks nft's text behind each chain, and the table.
func lines(text string) string { return strings.ReplaceAll(text, "; }", ";\n}\n") }

// iptables adds rules, a line each, with a program of that name.
func (c *cluster) iptables(program string, rules ...string) {
	for _, rule := range rules {
		c.Run(c.node.Namespace, program, strings.Fields(rule)...)
	}
}

// newPatient is a cluster that is well: a Service with endpoints on both nodes, one
// with a node port, and one whose endpoint is on the node itself.
func newPatient(t *testing.T) *cluster {
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(withNodePort(service("web", 1, everyProtocol(80)...), 30080), c.a)...)
	c.write(t, "far.yaml", withSlices(service("far", 2, everyProtocol(80)...), c.r)...)
	for f := range families {
		c.Serve(c.node.Namespace, "tcp", netip.AddrPortFrom(outside[f], targetPort), "node")
	}
	c.write(t, "host.yaml", withSlices(service("host", 3, everyProtocol(80)[:1]...), c.node)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	c.finds(t, nil)
	return c
}

// at is a frontend of a patient.
func at(n int, f family) netip.AddrPort { return netip.AddrPortFrom(clusterIP(n)[f], 80) }

func nodePort(f family) netip.AddrPort { return netip.AddrPortFrom(outside[f], 30080) }

// TestDoctorFirewalls: rules of others that lose packets of Services are found, the
// packets are lost, and a firewall that lets them pass is not found.
func TestDoctorFirewalls(t *testing.T) {
	t.Parallel()
	c := newPatient(t)
	const established = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
	docker := []string{
		"-P FORWARD DROP", "-N DOCKER", "-N DOCKER-ISOLATION-STAGE-1", "-N DOCKER-USER",
		"-A FORWARD -j DOCKER-USER", "-A FORWARD -j DOCKER-ISOLATION-STAGE-1",
		"-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -o docker0 -j DOCKER",
		"-A FORWARD -i docker0 ! -o docker0 -j ACCEPT", "-A FORWARD -i docker0 -o docker0 -j ACCEPT",
		"-A DOCKER-ISOLATION-STAGE-1 -j RETURN", "-A DOCKER-USER -j RETURN",
	}
	plugin := []string{"-I FORWARD -s 10.128.0.0/16 -j ACCEPT", "-I FORWARD -d 10.128.0.0/16 -j ACCEPT"}
	ufw := []string{
		"-P INPUT DROP", "-P FORWARD DROP", "-N ufw-before-input", "-N ufw-before-forward", "-A INPUT -j ufw-before-input", "-A FORWARD -j ufw-before-forward",
		"-A ufw-before-input -i lo -j ACCEPT", "-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		"-A ufw-before-input -m conntrack --ctstate INVALID -j DROP", "-A ufw-before-input -p tcp -m tcp --dport 22 -j ACCEPT",
		"-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT",
	}
	firewalld := `table inet firewalld {
	chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; jump mangle_PREROUTING_ZONES; }
	chain mangle_PREROUTING_ZONES { iifname "out" goto mangle_PRE_public; goto mangle_PRE_public; }
	chain mangle_PRE_public { return; }
	chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state { established, related } accept; ct status dnat accept; iifname "lo" accept; ct state invalid drop; reject with icmpx admin-prohibited; }
	chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; ct state { established, related } accept; %siifname "lo" accept; ct state invalid drop; jump filter_FORWARD_ZONES; reject with icmpx admin-prohibited; }
	chain filter_FORWARD_ZONES { iifname "out" goto filter_FWD_public; goto filter_FWD_public; }
	chain filter_FWD_public { ct state { established, related } accept; return; }
}
`
	onlyV4 := func(t *testing.T, c *cluster) {
		c.silent(t, c.client, "tcp", at(1, ip4))
		c.served(t, c.client, "tcp", at(1, ip6), masqueraded, "a")
	}
	for _, tt := range []struct {
		name  string
		nft   string
		with  string // program
		rules []string
		want  []string
		words []string
		proof func(t *testing.T, c *cluster)
	}{
		{name: "docker", with: "iptables-nft", rules: docker, want: []string{"error endpoint-dropped"},
			words: []string{"chain ip filter FORWARD, by its policy", "from outside by out", "10.128.0.2:8080 (default/web:", "iptables -t filter -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"}, proof: onlyV4},
		{name: "docker of old", with: "iptables-legacy", rules: docker, want: []string{"error endpoint-dropped"},
			words: []string{"iptables-legacy", "iptables-legacy -t filter -I FORWARD"}, proof: onlyV4},
		{name: "docker, with the mend", with: "iptables-nft", rules: append(slices.Clip(docker), "-t filter -I FORWARD -m conntrack --ctstate DNAT -j ACCEPT"),
			proof: func(t *testing.T, c *cluster) { c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a") }},
		{name: "docker beside a network plugin", with: "iptables-nft", rules: append(slices.Clip(docker), plugin...),
			proof: func(t *testing.T, c *cluster) { c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a") }},
		{name: "docker of old beside a network plugin", with: "iptables-legacy", rules: append(slices.Clip(docker), plugin...),
			proof: func(t *testing.T, c *cluster) { c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a") }},
		{name: "ufw", with: "iptables-nft", rules: ufw, want: []string{"error endpoint-dropped", "error endpoint-dropped"},
			words: []string{"chain ip filter INPUT, by its policy", "192.168.1.1:8080 (default/host:"},
			proof: func(t *testing.T, c *cluster) {
				onlyV4(t, c)
				c.silent(t, c.client, "tcp", at(3, ip4))
			}},
		{name: "firewalld", nft: fmt.Sprintf(firewalld, "ct status dnat accept; "),
			proof: func(t *testing.T, c *cluster) {
				for f := range families {
					c.served(t, c.client, "tcp", at(1, family(f)), masqueraded, "a")
					c.served(t, c.b, "tcp", at(2, family(f)), own, "r")
				}
			}},
		{name: "a firewall that knows of no translation", nft: fmt.Sprintf(firewalld, ""), want: []string{"error endpoint-dropped"},
			words: []string{"chain inet firewalld filter_FORWARD, rule with handle", "reject", "nft insert rule inet firewalld filter_FORWARD ct status dnat accept"},
			proof: func(t *testing.T, c *cluster) {
				for f := range families {
					c.fails(t, c.client, at(1, family(f)))
				}
			}},
		{name: "of pods only", nft: "table ip guard { chain f { type filter hook forward priority 0; ct state established accept; iifname \"pod-a\" oifname != \"pod-b\" drop; }; }",
			want: []string{"error endpoint-dropped"}, words: []string{"from pod 10.128.0.2 by pod-a"},
			proof: func(t *testing.T, c *cluster) {
				c.silent(t, c.a, "tcp", at(2, ip4))
				c.served(t, c.client, "tcp", at(2, ip4), masqueraded, "r")
			}},
		{name: "of the node itself", nft: "table inet guard { chain o { type filter hook output priority 0; ct state established accept; ip daddr 10.128.0.0/16 tcp dport 8080 reject; }; }",
			want: []string{"error endpoint-dropped"}, words: []string{"from the node itself"},
			proof: func(t *testing.T, c *cluster) {
				c.fails(t, c.node, at(1, ip4))
				c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a")
			}},
		{name: "depends on what nobody knows", nft: "table inet guard { chain f { type filter hook forward priority 0; meta length > 9000 drop; }; }",
			proof: func(t *testing.T, c *cluster) { c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a") }},
		{name: "before translation", with: "iptables-nft", rules: []string{"-t raw -A PREROUTING -p tcp -m tcp --dport 30080 -j DROP"},
			want: []string{"error frontend-dropped"}, words: []string{"192.168.1.1:30080 tcp (default/web:", "chain ip raw PREROUTING"},
			proof: func(t *testing.T, c *cluster) {
				c.silent(t, c.client, "tcp", nodePort(ip4))
				c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a")
			}},
		{name: "untracked", nft: "table ip raw2 { chain p { type filter hook prerouting priority raw; ip daddr 10.96.0.0/24 notrack; }; }",
			want: []string{"error notrack"}, words: []string{"10.96.0.1:80 tcp (default/web:", "notrack"},
			proof: func(t *testing.T, c *cluster) { c.silent(t, c.client, "tcp", at(1, ip4)) }},
		{name: "untracked by iptables", with: "iptables-legacy", rules: []string{"-t raw -A PREROUTING -d 10.96.0.1 -j CT --notrack"},
			want: []string{"error notrack"}, proof: func(t *testing.T, c *cluster) { c.silent(t, c.client, "tcp", at(1, ip4)) }},
		{name: "translated before", nft: "table ip publish { chain p { type nat hook prerouting priority -110; tcp dport 30080 dnat to 10.128.0.3:8080; }; }",
			want: []string{"warning translated-before"}, words: []string{"192.168.1.1:30080 tcp", "dnat"},
			proof: func(t *testing.T, c *cluster) { c.served(t, c.client, "tcp", nodePort(ip4), eitherSource, "b") }},
		{name: "a published port of docker", with: "iptables-nft", rules: []string{"-t nat -N DOCKER", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
			"-t nat -A DOCKER -i docker0 -j RETURN", "-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 30081 -j DNAT --to-destination 172.17.0.2:81",
			"-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 30080 -j DNAT --to-destination 172.17.0.2:80"},
			want: []string{"warning translated-before?"}, words: []string{"192.168.1.1:30080 tcp", "chain ip nat DOCKER"}},
		{name: "other published ports of docker", with: "iptables-nft", rules: []string{"-t nat -N DOCKER", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
			"-t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 30081 -j DNAT --to-destination 172.17.0.2:81"},
			proof: func(t *testing.T, c *cluster) { c.served(t, c.client, "tcp", nodePort(ip4), masqueraded, "a") }},
		{name: "our bit set", nft: "table ip marks { chain p { type filter hook prerouting priority mangle; iifname \"pod-b\" meta mark set meta mark | 0x4000; }; }",
			want: []string{"warning mark-conflict"}, words: []string{"0x4000"},
			proof: func(t *testing.T, c *cluster) { c.served(t, c.b, "tcp", at(1, ip4), masqueraded, "a") }},
		{name: "our bit cleared", with: "iptables-nft", rules: []string{"-t mangle -A FORWARD -j MARK --set-xmark 0x0/0x4000"},
			want: []string{"warning mark-conflict?"}, words: []string{"chain ip mangle FORWARD changes bit 0x4000"},
			proof: func(t *testing.T, c *cluster) { c.served(t, c.client, "tcp", at(1, ip4), own, "a") }},
		{name: "our bit looked at", with: "iptables-nft", rules: []string{"-t filter -A FORWARD -m mark --mark 0x4000/0x4000 -j DROP"},
			want: []string{"warning mark-conflict?"}, words: []string{"looks at bit 0x4000"},
			proof: func(t *testing.T, c *cluster) { c.silent(t, c.client, "tcp", at(1, ip4)) }},
		{name: "bits of others", with: "iptables-nft", rules: []string{"-t mangle -A PREROUTING -j MARK --set-xmark 0x200/0xf00", "-t filter -A FORWARD -m mark --mark 0x20000/0x20000 -j ACCEPT",
			"-t mangle -A POSTROUTING -j CONNMARK --save-mark"},
			proof: func(t *testing.T, c *cluster) { c.served(t, c.b, "tcp", at(1, ip4), own, "a") }},
		{name: "flannel", with: "iptables-nft", rules: []string{"-t nat -N FLANNEL-POSTRTG", "-t nat -A POSTROUTING -j FLANNEL-POSTRTG",
			"-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN", "-t nat -A FLANNEL-POSTRTG -s 10.128.0.0/16 -d 10.128.0.0/16 -j RETURN",
			"-t nat -A FLANNEL-POSTRTG -s 10.128.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
			"-t filter -N FLANNEL-FWD", "-t filter -A FORWARD -j FLANNEL-FWD", "-t filter -A FLANNEL-FWD -s 10.128.0.0/16 -j ACCEPT", "-t filter -A FLANNEL-FWD -d 10.128.0.0/16 -j ACCEPT"},
			proof: func(t *testing.T, c *cluster) {
				c.served(t, c.client, "tcp", at(1, ip4), masqueraded, "a")
				c.served(t, c.b, "tcp", at(1, ip4), own, "a")
			}},
		{name: "a trace", nft: "table inet kube-nft-trace { chain p { type filter hook prerouting priority -400; }; }", want: []string{"note trace-table"}},
		{name: "a kubelet", with: "iptables-nft", rules: []string{"-t mangle -N KUBE-KUBELET-CANARY", "-t filter -N KUBE-FIREWALL", "-t filter -A INPUT -j KUBE-FIREWALL", "-t filter -A OUTPUT -j KUBE-FIREWALL",
			"-t filter -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.nft != "" {
				c.Must(c.node.NFT(lines(tt.nft)))
			}
			established := established
			if tt.name == "of pods only" {
				established = ""
			}
			if slices.Contains(tt.rules, "-P FORWARD DROP") && established != "" {
				c.iptables(tt.with, established)
			}
			c.iptables(tt.with, tt.rules...)
			c.finds(t, tt.want, tt.words...)
			if tt.proof != nil {
				tt.proof(t, c)
			}
			c.clearOthers(t, tt.with)
		})
	}
	c.finds(t, nil)
	for f := range families {
		c.served(t, c.client, "tcp", at(1, family(f)), masqueraded, "a")
	}
}

// clearOthers removes the tables of all but kube-nft, and what iptables-legacy has.
func (c *cluster) clearOthers(t *testing.T, program string) {
	t.Helper()
	for line := range strings.Lines(c.Run(c.node.Namespace, "nft", "list", "tables")) {
		if table := strings.TrimSpace(strings.TrimPrefix(line, "table ")); !strings.HasSuffix(table, " kube-nft") {
			c.Must(c.node.NFT("delete table " + table + "\n"))
		}
	}
	if program == "iptables-legacy" {
		c.iptables(program, "-P FORWARD ACCEPT", "-P INPUT ACCEPT")
		for _, table := range []string{"raw", "mangle", "nat", "filter"} {
			c.iptables(program, "-t "+table+" -F", "-t "+table+" -X")
		}
	}
	c.Must(c.node.FlushConntrack())
}

// brief is how long a client waits for an answer that is not to come.
const brief = 300 * time.Millisecond

// fails checks that a TCP connection is not answered, in whatever way.
func (c *cluster) fails(t *testing.T, from *host, dst netip.AddrPort) {
	t.Helper()
	if a, err := from.ask("tcp", dst, brief); err == nil {
		t.Errorf("from %s to %s: answered by %s", from.Name(), dst, a.Server)
	}
}

// hostRoot is a directory with some kernel parameters of a host; others are read
// where they are.
func hostRoot(t *testing.T, params map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, value := range params {
		path := filepath.Join(root, "proc/sys", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}
