// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"encoding/json"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kube-nft/kube-nft/tests/process"
)

// TestDoctor has doctor find a kube-proxy that runs, then what it has left behind, and
// nothing when that is gone, by kube-proxy's own cleanup or by the mend that is named.
func TestDoctor(t *testing.T) {
	needIptables(t)
	s := newSite(t, 2)
	s.createPod(s.nodes[1], "web")
	proxies := []*process.Process{s.startProxy(s.nodes[0], "nftables"), s.startProxy(s.nodes[1], "iptables")}
	for _, n := range s.nodes {
		s.awaitProxy(n)
	}
	web := s.apply("web", "web", "type: NodePort")
	for _, agent := range s.runAgents() {
		agent.Await(soon, programmed)
	}
	for _, n := range s.nodes {
		s.seen(n, web, s.podsOf("web")...)
	}
	modes := []string{"mode nftables", "mode iptables"}
	// In iptables mode it also sets a parameter, which nobody takes back.
	more := [][]string{nil, {"warning route-localnet"}}
	for i, n := range s.nodes {
		s.finds(n, append([]string{"error kube-proxy-runs", "warning kube-proxy-left"}, more[i]...), modes[i])
	}
	for _, p := range proxies {
		p.End(syscall.SIGTERM)
	}
	for i, n := range s.nodes {
		s.finds(n, append([]string{"warning kube-proxy-left"}, more[i]...), modes[i])
	}
	// What kube-proxy itself cleans up, and what the mends do.
	s.cleanProxy(s.nodes[0])
	s.finds(s.nodes[0], nil)
	mend := process.Start(t, s.nodes[1].Namespace, process.KubeNFT(), "migrate", "take-over")
	if code := mend.Exit(soon); code != 0 {
		t.Errorf("code %d: %s", code, mend.Text())
	}
	s.finds(s.nodes[1], more[1])
	s.Must(s.nodes[1].Sysctl("net.ipv4.conf.all.route_localnet", "0"))
	s.finds(s.nodes[1], nil)
	for _, n := range s.nodes {
		s.seen(n, web, s.podsOf("web")...)
	}
}

// finds checks what doctor finds on a node, and that it says so in words.
func (s *site) finds(n *node, want []string, words ...string) {
	s.t.Helper()
	p := process.Start(s.t, n.Namespace, process.KubeNFT(), "doctor", "-o", "json")
	p.Exit(soon)
	var report struct {
		Findings []struct{ ID, Severity, What string }
	}
	if err := json.Unmarshal([]byte(p.Text()), &report); err != nil {
		s.t.Fatalf("%v:\n%s", err, p.Text())
	}
	var got []string
	for _, f := range report.Findings {
		got = append(got, f.Severity+" "+f.ID)
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("on %s doctor finds %v, want %v:\n%s", n.Name(), got, want, p.Text())
	}
	for _, w := range words {
		if !strings.Contains(p.Text(), w) {
			s.t.Errorf("on %s nothing says %q:\n%s", n.Name(), w, p.Text())
		}
	}
}
