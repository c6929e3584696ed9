// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// TestMigrateIPVS takes a node over from kube-proxy in mode ipvs and gives it back, under
// traffic. Connections that were opened through IPVS stay with it until they end, and no
// other is, though clients use ports again; or they are ended. What others have in IPVS
// and in ipset is as it was. Few kernels here have IPVS: tests/compare/uml runs this test
// inside one that has.
func TestMigrateIPVS(t *testing.T) {
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Skip("this kernel has no IPVS; tests/compare/uml runs this test in one that has")
	}
	s := newSite(t, 1)
	n := s.nodes[0]
	s.createPod(n, "web")
	s.createPod(n, "web")
	shop := s.createPod(n, "shop")
	// Clients come to use a port again to which IPVS still has a connection that is over.
	for _, ns := range []*netlab.Namespace{shop.Namespace, s.client} {
		s.Must(ns.Sysctl("net.ipv4.ip_local_port_range", "40000 51999"))
	}
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
	proxy = s.giveBack(n, agent, "ipvs", path)
	now.goOn(s)
	s.Answers(soon, s.client, "udp", web.atNode(n, "udp", 1), names(s.podsOf("web"))...)
	s.lossless(now, "connections through kube-nft, until the node was given back")
	if services := s.Run(n.Namespace, "ipvsadm", "-S", "-n"); !strings.Contains(services, fmt.Sprintf("%s:80", web.addrs[0])) {
		t.Errorf("no Service is in IPVS after all:\n%s", services)
	}
	s.endIPVS(n, proxy, shop.Namespace, web)
}

// endIPVS takes a node over and does not wait for connections through IPVS. A flow of UDP
// goes on. A client of TCP does not wait in vain: it comes to its endpoint again, by
// chance, or to another one, which refuses it.
func (s *site) endIPVS(n *node, proxy *process.Process, from *netlab.Namespace, to service) {
	s.t.Helper()
	tcp, err := from.Dial(s.t.Context(), "tcp", to.at(0))
	s.Must(err)
	defer tcp.Close()
	udp, err := from.Dial(s.t.Context(), "udp", to.at(1))
	s.Must(err)
	defer udp.Close()
	for _, conn := range []*netlab.Conn{tcp, udp} {
		_, err := conn.Ask(s.t.Context())
		s.Must(err)
	}
	agent := s.startAgent(n, append(otherPorts, "--proxy-mode", "ipvs")...)
	agent.Await(2*soon, programmed)
	proxy.End(syscall.SIGTERM)
	for _, conn := range []*netlab.Conn{tcp, udp} {
		_, err := conn.Ask(s.t.Context())
		s.Must(err)
	}
	s.t.Log(s.migrate(n, 0, "take-over", "--drain", "0"))
	if _, err := tcp.Ask(s.t.Context()); err != nil && !errors.Is(err, netlab.ErrReset) {
		s.t.Errorf("a connection that was ended: %v, want an answer or %v", err, netlab.ErrReset)
	}
	s.Eventually(soon, func() error {
		_, err := udp.Ask(s.t.Context())
		return err
	})
}
