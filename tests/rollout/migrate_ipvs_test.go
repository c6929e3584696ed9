// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMigrateIPVS takes a node over from kube-proxy in mode ipvs and gives it back, under
// traffic. Connections that were opened through IPVS stay with it until they end, and no
// other is; what others have in IPVS and in ipset is as it was. Few kernels here have
// IPVS: tests/compare/uml runs this test inside one that has.
func TestMigrateIPVS(t *testing.T) {
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Skip("this kernel has no IPVS; tests/compare/uml runs this test in one that has")
	}
	s := newSite(t, 1)
	n := s.nodes[0]
	s.createPod(n, "web")
	s.createPod(n, "shop")
	web := s.apply("web", "web", "type: NodePort")
	s.apply("empty", "nobody", "type: NodePort")
	path := withIptables(t, "xtables-legacy-multi")
	s.foreign(n, path)
	s.Run(n.Namespace, "ipset", "create", "mine", "hash:ip")
	s.Run(n.Namespace, "ipvsadm", "-A", "-t", "198.51.100.9:9999", "-s", "wlc")
	s.Run(n.Namespace, "ipvsadm", "-a", "-t", "198.51.100.9:9999", "-r", "192.0.2.100:9999", "-m")
	before := s.listing(n) + s.Run(n.Namespace, "ipvsadm", "-S", "-n")
	proxy := s.startProxyWith(n, "ipvs", path)
	s.awaitProxy(n)
	s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)

	old := s.startTraffic(s.flowsTo(web))
	s.want(s.migrate(n, 0), "mode     ipvs", "in turn (rr)", "does not answer ping", "connections go through IPVS", "IPVS: ", "device kube-ipvs0 with")
	agent := s.startAgent(n, append(otherPorts, "--proxy-mode", "ipvs")...)
	agent.Await(2*soon, programmed)
	s.want(s.migrate(n, 1, "take-over"), "ok    kube-nft runs here", "FAIL  no kube-proxy runs here", "ok    each of")
	proxy.End(syscall.SIGTERM)
	s.want(s.migrate(n, 1, "take-over", "--drain", "1s"), "still open are ")
	if rules := s.Run(n.Namespace, "iptables-legacy-save"); strings.Contains(rules, "KUBE-SERVICES") {
		t.Errorf("rules are left:\n%s", rules)
	}
	old.goOn(s)
	now := s.startTraffic(s.flowsTo(web))
	now.goOn(s)
	s.lossless(old, "connections through IPVS, while the node was taken over")
	out := s.migrate(n, 0, "take-over", "--drain", "3m")
	t.Log(out)
	if diff := cmp.Diff(before, s.listing(n)+s.Run(n.Namespace, "ipvsadm", "-S", "-n")); diff != "" {
		t.Errorf("after take-over, -before kube-proxy +now:\n%s", diff)
	}
	now.goOn(s)
	s.giveBack(n, agent, "ipvs", path)
	now.goOn(s)
	s.Answers(soon, s.client, "udp", web.atNode(n, "udp", 1), names(s.podsOf("web"))...)
	s.lossless(now, "connections through kube-nft, until the node was given back")
	if services := s.Run(n.Namespace, "ipvsadm", "-S", "-n"); !strings.Contains(services, fmt.Sprintf("%s:80", web.addrs[0])) {
		t.Errorf("no Service is in IPVS after all:\n%s", services)
	}
}
