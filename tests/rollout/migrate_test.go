// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/process"
)

// TestMigrate takes nodes over from kube-proxy in each of its modes and gives them back,
// by kube-nft's own commands, while connections run: none is lost, every question is
// answered, and what others have on the node is as it was.
func TestMigrate(t *testing.T) {
	needIptables(t)
	modes := []struct{ mode, multi string }{
		{"nftables", "xtables-nft-multi"}, {"iptables", "xtables-nft-multi"}, {"iptables", "xtables-legacy-multi"},
	}
	s := newSite(t, len(modes))
	for _, n := range s.nodes {
		s.createPod(n, "web")
		s.createPod(n, "shop")
	}
	web := s.apply("web", "web", "type: NodePort")
	local := s.apply("local", "web", "type: NodePort", "externalTrafficPolicy: Local")
	s.apply("empty", "nobody", "type: NodePort")
	paths, before, proxies := make([]string, len(modes)), make([]string, len(modes)), make([]*process.Process, len(modes))
	for i, n := range s.nodes {
		paths[i] = withIptables(t, modes[i].multi)
		s.foreign(n, paths[i])
		before[i] = s.listing(n)
		proxies[i] = s.startProxyWith(n, modes[i].mode, paths[i])
	}
	for _, n := range s.nodes {
		s.awaitProxy(n)
		s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)
		s.Answers(soon, s.client, "tcp", local.atNode(n, "tcp", 1), s.podOn(n, "web").Name())
	}
	tr := s.startTraffic(s.flowsTo(web))
	agents := make([]*process.Process, len(modes))
	for i, n := range s.nodes {
		name := fmt.Sprintf("%s (%s)", modes[i].mode, modes[i].multi)
		agents[i] = s.takeOver(n, proxies[i], modes[i].mode, name)
		if diff := cmp.Diff(before[i], s.listing(n)); diff != "" {
			t.Errorf("%s: after take-over, -before kube-proxy +now:\n%s", name, diff)
		}
		tr.goOn(s)
	}
	late := s.createPod(s.nodes[0], "web") // which kube-proxy has never known
	for _, n := range s.nodes {
		s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)
	}
	t.Logf("all nodes are kube-nft's; %s is an endpoint more", late.Name())
	for i, n := range s.nodes {
		proxies[i] = s.giveBack(n, agents[i], modes[i].mode, paths[i])
		tr.goOn(s)
	}
	for _, n := range s.nodes {
		s.Answers(soon, s.client, "udp", web.atNode(n, "udp", 1), names(s.podsOf("web"))...)
	}
	s.lossless(tr, fmt.Sprintf("%d nodes taken over and given back", len(modes)))
	// What a kube-proxy has left that has stopped is not taken for what one keeps.
	proxies[0].End(syscall.SIGTERM)
	s.want(s.migrate(s.nodes[0], 1, "back", "--wait", "100ms"), "FAIL  kube-proxy runs here: none can be seen", "ok    each of 0 frontends")
}

// takeOver starts kube-nft beside kube-proxy, and has it take the node over: not while
// kube-proxy runs, not without --force if a frontend is missing, and in a dry run not at
// all.
func (s *site) takeOver(n *node, proxy *process.Process, mode, name string) *process.Process {
	s.t.Helper()
	out := s.migrate(n, 0)
	for _, want := range []string{"mode     " + mode, fmt.Sprintf("runs     as process %d", proxy.PID()), "has left ", "runs     no", "stop kube-proxy"} {
		if !strings.Contains(out, want) {
			s.t.Errorf("%s: migrate does not say %q:\n%s", name, want, out)
		}
	}
	s.want(s.migrate(n, 1, "take-over"), "FAIL  kube-nft runs here", "FAIL  no kube-proxy runs here", "FAIL  each of")
	agent := s.startAgent(n, append(otherPorts, "--proxy-mode", mode)...)
	agent.Await(soon, programmed)
	s.want(s.migrate(n, 1, "take-over"), "ok    kube-nft runs here", "FAIL  no kube-proxy runs here", "ok    each of")
	proxy.End(syscall.SIGTERM)
	was := s.whole(n)
	s.want(s.migrate(n, 0, "take-over", "--dry-run"), "would remove ")
	if diff := cmp.Diff(was, s.whole(n)); diff != "" {
		s.t.Errorf("%s: a dry run has changed the node:\n%s", name, diff)
	}
	began := time.Now()
	s.t.Logf("%s:\n%s%v", name, s.migrate(n, 0, "take-over"), time.Since(began).Round(time.Millisecond))
	s.want(s.migrate(n, 0, "take-over"), "kube-proxy has left nothing here")
	s.want(s.migrate(n, 0), "nothing: kube-proxy has left nothing here")
	return agent
}

// giveBack starts kube-proxy, and has kube-nft's tables removed when it has programmed the
// node, which back waits for.
func (s *site) giveBack(n *node, agent *process.Process, mode, path string) *process.Process {
	s.t.Helper()
	s.want(s.migrate(n, 1, "back"), "FAIL  kube-nft has stopped")
	agent.End(syscall.SIGTERM)
	s.want(s.migrate(n, 1, "back", "--wait", "100ms"), "ok    kube-nft has stopped", "FAIL  kube-proxy runs here", "FAIL  kube-proxy has programmed this node")
	proxy := s.startProxyWith(n, mode, path)
	s.t.Logf("%s back:\n%s", mode, s.migrate(n, 0, "back"))
	s.noTable(n, "kube-nft")
	return proxy
}

// migrate runs kube-nft migrate on a node, and returns what it says.
func (s *site) migrate(n *node, code int, args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 4*time.Minute)
	defer cancel()
	cmd := n.Command(ctx, process.KubeNFT(), append([]string{"migrate"}, args...)...)
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		s.t.Fatalf("migrate %s on %s: exit code %d, want %d: %v\n%s", strings.Join(args, " "), n.Name(), got, code, err, out)
	}
	return string(out)
}

func (s *site) want(text string, wants ...string) {
	s.t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			s.t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

// withIptables returns a PATH on which iptables is one of its two variants.
func withIptables(t *testing.T, multi string) string {
	t.Helper()
	program, err := exec.LookPath(multi)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, six := range []string{"", "6"} {
		for _, what := range []string{"", "-save", "-restore"} {
			if err := os.Symlink(program, filepath.Join(dir, "ip"+six+"tables"+what)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir + ":" + os.Getenv("PATH")
}

// startProxyWith is startProxy with a PATH.
func (s *site) startProxyWith(n *node, mode, path string) *process.Process {
	s.t.Helper()
	config := process.WriteProxyConfig(s.t, s.api.Kubeconfig(cluster.Admin), n.Name(), map[string]any{
		"mode": mode, "clusterCIDR": clusterCIDR,
		// How long IPVS keeps connections of which one side has said that it is over, and
		// what kube-proxy leaves to others.
		"ipvs": map[string]any{"tcpFinTimeout": "10s", "excludeCIDRs": []string{"198.51.100.0/24"}},
	})
	return process.Start(s.t, n.Namespace, "env", "PATH="+path, programOf(s.t, cluster.Proxy), "--config", config)
}

// foreignRules are kubelet's, a network plugin's and an administrator's, as
// iptables-restore takes them; kubelet has KUBE-FIREWALL in IPv4 alone.
const foreignRules = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"kindnet\"" -m tcp --dport 9 -j DNAT --to-destination :9
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A INPUT -p tcp -m tcp --dport 9 -j DROP
-A FORWARD -m mark --mark 0xbad -j DROP
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
`

const kubeletFirewall = `*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
`

// foreign makes what others have on a node.
func (s *site) foreign(n *node, path string) {
	s.t.Helper()
	for _, r := range []struct{ program, rules string }{
		{"iptables-restore", foreignRules}, {"ip6tables-restore", foreignRules}, {"iptables-restore", kubeletFirewall},
	} {
		cmd := n.Command(s.t.Context(), "env", "PATH="+path, r.program, "--noflush")
		cmd.Stdin = strings.NewReader(r.rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Fatalf("%s on %s: %v: %s", r.program, n.Name(), err, out)
		}
	}
	s.Must(n.NFT("table inet mine {\n\tset s { type ipv4_addr; }\n\tchain c { type filter hook input priority 10; ip saddr @s counter drop\n}\n}"))
}

// whole lists what a node has in packet filters and ipsets, and its devices, without
// what counts by itself.
func (s *site) whole(n *node) string {
	s.t.Helper()
	var all strings.Builder
	for _, command := range []string{
		"nft -s list ruleset", "iptables-legacy-save", "ip6tables-legacy-save", "ipset save", "ip -o link show", "ip rule", "ip -6 rule",
	} {
		args := strings.Fields(command)
		all.WriteString(s.Run(n.Namespace, args[0], args[1:]...))
	}
	return regexp.MustCompile(`(?m)^#.*\n| \[\d+:\d+\]$`).ReplaceAllString(all.String(), "")
}

// listing is whole without kube-nft's own tables.
func (s *site) listing(n *node) string {
	s.t.Helper()
	return regexp.MustCompile(`(?ms)^table ip6? kube-nft \{.*?^\}\n`).ReplaceAllString(s.whole(n), "")
}
