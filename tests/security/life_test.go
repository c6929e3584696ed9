// SPDX-License-Identifier: Apache-2.0

package security

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// netAdmin is CAP_NET_ADMIN as /proc shows it.
const netAdmin = "0000000000001000"

// TestPrivileges: with CAP_NET_ADMIN alone, nothing to gain by exec, no file system to
// write to and the profile's system calls, of which any other one would be the end of the
// process, kube-nft does all that it does. Another user than root is enough if the
// capability is ambient.
func TestPrivileges(t *testing.T) {
	for _, tt := range []struct {
		name      string
		confined  []string
		uid       int
		inherited string
	}{
		{"root", nil, 0, "0000000000000000"},
		{"another user", []string{"-uid", "65532"}, 65532, netAdmin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if data, err := os.ReadFile("/proc/self/uid_map"); err != nil || tt.uid != 0 && strings.Fields(string(data))[2] == "1" {
				t.Skip("there is no other user in this user namespace")
			}
			n := newNode(t)
			confined := append(tt.confined, "-caps", "net_admin", "-no-new-privs", "-read-only", "-profile", profile, "-violation", "kill")
			n.run(confined, "--service-metrics", "10")
			n.checkStatus(tt.uid, tt.inherited)
			n.live()
			n.ask(confined)
			n.program.End(syscall.SIGTERM)
			if code := n.program.Exit(soon); code != 0 {
				t.Errorf("ended with %d, want 0", code)
			}
			n.program = nil
			n.answered(n.client, "tcp", clusterIP, 2) // what is programmed stays
			if code, said := n.toEnd(confined, "cleanup"); code != 0 {
				t.Errorf("cleanup ended with %d: %s", code, said)
			}
		})
	}
}

// checkStatus shows that the process is confined, by what the kernel says of it.
func (n *node) checkStatus(uid int, inherited string) {
	n.t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(n.program.PID()) + "/status")
	n.Must(err)
	id := strconv.Itoa(uid)
	want := map[string]string{"Uid": strings.Join([]string{id, id, id, id}, " "), "CapBnd": netAdmin, "CapPrm": netAdmin, "CapEff": netAdmin,
		"CapInh": inherited, "CapAmb": inherited, "NoNewPrivs": "1", "Seccomp": "2"}
	got := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(line, ":")
		if want[key] != "" {
			got[key] = strings.Join(strings.Fields(value), " ")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		n.t.Errorf("process, -want +got:\n%s", diff)
	}
}

// live is the usual life of a node: traffic, changes, drift, a new configuration, and
// everybody who asks.
func (n *node) live() {
	n.t.Helper()
	for _, network := range []string{"tcp", "udp"} {
		n.answered(n.client, network, clusterIP, 1, 2)
		n.answered(n.client, network, nodePort, 1, 2)
		n.answered(n.node, network, localhost, 1, 2)
	}
	for _, url := range []string{"http://127.0.0.1:10256/healthz", "http://127.0.0.1:10256/readyz", "http://127.0.0.1:10249/metrics",
		"http://127.0.0.1:10249/configz", "http://127.0.0.1:10249/debug/pprof/goroutine?debug=1", "http://127.0.0.1:10249/debug/pprof/profile?seconds=1",
		"http://127.0.0.1:10249/debug/pprof/trace?seconds=1", "http://127.0.0.1:10249/debug/pprof/heap?gc=1"} {
		if status, body := n.get(url); status != 200 {
			n.t.Errorf("%s: %d %s", url, status, body)
		}
	}
	if _, metrics := n.get("http://127.0.0.1:10249/metrics"); !strings.Contains(metrics, `service="web"`) {
		n.t.Error("no Service in the metrics")
	}
	n.stick()

	n.endpoints(2)
	for _, network := range []string{"tcp", "udp"} {
		n.answered(n.client, network, clusterIP, 2)
		n.answered(n.node, network, localhost, 2)
	}
	n.Must(n.node.NFT("delete table ip kube-nft"))
	n.answered(n.client, "tcp", clusterIP, 2)

	n.configure(2, "healthzBindAddress: 0.0.0.0:10256", "iptables: {masqueradeBit: 14}", "nftables: {masqueradeAll: true}")
	n.program.Await(soon, "commit")
	n.answered(n.client, "tcp", clusterIP, 2)
	n.Must(n.node.Addr("lo", netip.MustParsePrefix("192.0.2.77/32"))) // the node's addresses are followed
}

// ask runs the commands that somebody runs beside it, in the same container as it were.
func (n *node) ask(confined []string) {
	n.t.Helper()
	for _, args := range [][]string{{"list"}, {"explain", "default/web"}, {"explain", "198.51.100.2", clusterIP.String()}, {"doctor"}} {
		code, said := n.toEnd(confined, args...)
		if code < 0 || code > 0 && args[0] != "doctor" { // which has its own for what it finds
			n.t.Errorf("%v ended with %d: %s", args, code, said)
		}
	}
}

// stick has a client remembered, and its endpoint leave: its entry is read and deleted.
func (n *node) stick() {
	n.t.Helper()
	tally := netlab.Many(n.t.Context(), 10, 1, func(int) (netlab.Answer, error) { return n.client.Ask(n.t.Context(), "tcp", sticky) })
	if len(tally.Servers) != 1 || tally.Failed() > 0 {
		n.t.Errorf("session affinity: %v", tally)
	}
}

// TestProfileBites: what does more than kube-nft is ended by the profile, so that
// TestPrivileges shows something.
func TestProfileBites(t *testing.T) {
	n := newNode(t)
	for _, program := range []string{"ip", "nft"} {
		path, err := exec.LookPath(program)
		n.Must(err)
		cmd := n.node.Command(t.Context(), os.Getenv(confineEnv), "-no-new-privs", "-profile", profile, "-violation", "kill", path, "help")
		out, err := cmd.CombinedOutput()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGSYS {
			t.Errorf("%s: %v, %s, want SIGSYS", program, err, out)
		}
	}
}

// TestInitOnly: what --init-only does needs no other capability, and what it needs beside
// is the node's kernel parameters, to write to.
func TestInitOnly(t *testing.T) {
	n := newNode(t)
	confined := []string{"-caps", "net_admin", "-no-new-privs", "-profile", profile, "-violation", "kill"}
	n.Must(n.node.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", "1000"))
	args := []string{"run", "--init-only", "--config", n.config, "--manifests", n.manifests, "--hostname-override", "node-0"}
	code, said := n.toEnd(append(slices.Clone(confined), "-read-only"), args...)
	if got := n.established(); code != 0 || got != "1000" || !strings.Contains(said, "nf_conntrack_tcp_timeout_established") {
		t.Errorf("read-only: ended with %d, the parameter is %s: %s", code, got, said)
	}
	code, said = n.toEnd(confined, args...)
	if got := n.established(); code != 0 || got != "39600" {
		t.Errorf("ended with %d, the parameter is %s: %s", code, got, said)
	}
}

func (n *node) established() string {
	n.t.Helper()
	return strings.TrimSpace(n.Run(n.node, "cat", "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established"))
}

// TestWithoutCapability: each command that needs the capability says so, in one line that
// says what to do, and does nothing.
func TestWithoutCapability(t *testing.T) {
	n := newNode(t)
	run := []string{"run", "--manifests", n.manifests, "--hostname-override", "node-0", "--conntrack-max-per-core", "0"}
	for _, confined := range [][]string{{"-caps", "none"}, {"-caps", "net_raw", "-no-new-privs"}, {"-uid", "65532", "-caps", "none"}} {
		for _, args := range [][]string{run, append(slices.Clone(run), "--init-only"), {"cleanup"}} {
			code, said := n.toEnd(confined, args...)
			if code != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, "CAP_NET_ADMIN") {
				t.Errorf("%v %v: ended with %d, want one line that names CAP_NET_ADMIN: %s", confined, args, code, said)
			}
		}
	}
	if ruleset := n.Run(n.node, "nft", "list", "ruleset"); ruleset != "" {
		t.Errorf("there is a ruleset:\n%s", ruleset)
	}
}
