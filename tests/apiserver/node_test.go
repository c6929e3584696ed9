// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
)

// TestNode moves node ports to where the Node object says that the node is.
func TestNode(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	s.runAgent().awaitProgrammed()
	web := s.createService("web", 1)
	// Where a node port is not served the node itself refuses: nothing listens there.
	check := func(yes, no []netip.Addr) {
		t.Helper()
		for _, a := range yes {
			s.answers(s.client, "tcp", netip.AddrPortFrom(a, web.nodePort), "pod-1")
		}
		for _, a := range no {
			s.answers(s.client, "tcp", netip.AddrPortFrom(a, web.nodePort))
		}
	}
	s.createNode(nodeAddrs...)
	check(nodeAddrs, otherAddrs)
	s.setNodeAddrs(otherAddrs...)
	check(otherAddrs, nodeAddrs)
	s.setNodeAddrs(nodeAddrs[0], otherAddrs[1]) // as kubelet lists them: the first of each family counts
	check([]netip.Addr{nodeAddrs[0], otherAddrs[1]}, []netip.Addr{otherAddrs[0], nodeAddrs[1]})

	// A Node that is deleted, by mistake say, keeps its last word.
	m := s.startMonitor()
	s.do(http.MethodDelete, nodesPath+"/"+nodeName, nil, nil)
	s.createService("later", 1)
	check([]netip.Addr{nodeAddrs[0], otherAddrs[1]}, []netip.Addr{otherAddrs[0], nodeAddrs[1]})
	for _, event := range m.Events() {
		if strings.HasPrefix(event, "delete") && strings.Contains(event, nodeAddrs[0].String()) {
			t.Errorf("deleting the Node changed the tables: %s", event)
		}
	}
}

// TestRestart starts kube-nft again and again on tables that are as they should
// be: nothing may be written, whatever the order in which the API answers.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	s.createNode(nodeAddrs...)
	agent := s.runAgent()
	agent.awaitProgrammed()
	web := s.createService("web", 1, 2)
	s.answers(s.client, "udp", web.at(true), "pod-1", "pod-2")
	s.answers(s.client, "tcp", netip.AddrPortFrom(nodeAddrs[0], web.nodePort), "pod-1", "pod-2")
	m := s.startMonitor()
	stop := s.allTraffic(web)
	for range 10 {
		agent.end(syscall.SIGTERM)
		agent = s.runAgent()
		agent.awaitProgrammed()
		s.answers(s.client, "tcp", netip.AddrPortFrom(nodeAddrs[1], web.nodePort), "pod-1", "pod-2")
	}
	stop()
	if events := m.Events(); len(events) > 0 {
		t.Errorf("10 restarts changed the tables:\n%s", strings.Join(events, "\n"))
	}
}
