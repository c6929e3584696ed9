// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestServices has Services come, change and go.
func TestServices(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	s.createNode(nodeAddrs...)
	agent := s.runAgent()
	agent.awaitProgrammed()
	web := s.createService("web", 1, 2)

	tests := []struct {
		name string
		from *netlab.Namespace
		v6   bool
	}{
		{"pod, IPv4", s.pods[0], false},
		{"pod, IPv6", s.pods[0], true},
		{"client, IPv4", s.client, false},
		{"client, IPv6", s.client, true},
		{"node, IPv4", s.node, false},
		{"node, IPv6", s.node, true},
	}
	check := func(servers ...string) {
		t.Helper()
		for _, tt := range tests {
			for _, network := range []string{"tcp", "udp"} {
				s.answers(tt.from, network, web.at(tt.v6), servers...)
			}
		}
	}
	check("pod-1", "pod-2")
	for i, family := range []bool{false, true} {
		s.answers(s.client, "tcp", netip.AddrPortFrom(nodeAddrs[i], web.nodePort), "pod-1", "pod-2")
		for _, tt := range tests {
			if tt.v6 == family {
				s.checkSource(tt.name, tt.from, web.at(family))
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		s.setEndpoints("web", v6, 2)
	}
	check("pod-2")
	for _, v6 := range []bool{false, true} {
		s.setEndpoints("web", v6)
	}
	check()
	for _, v6 := range []bool{false, true} {
		s.setEndpoints("web", v6, 1)
	}
	check("pod-1")
	s.deleteService("web")
	check()
}

// checkSource checks who a server sees: pods as they are, others as the node.
func (s *site) checkSource(name string, from *netlab.Namespace, to netip.AddrPort) {
	s.t.Helper()
	got := s.Ask(from, "tcp", to).Source.Addr()
	pod := got == podAddr(0, to.Addr().Is6())
	outside := prefixes("198.51.100.2/32", "2001:db8:1::2/128")
	if pod != (from == s.pods[0]) || outside[0].Contains(got) || outside[1].Contains(got) {
		s.t.Errorf("%s: the server saw %v", name, got)
	}
}

// TestAPIService asks the API server through its own Service, as pods do.
func TestAPIService(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.runAgent().awaitProgrammed()
	client := s.api.ClientVia(cluster.Admin, s.pods[0].DialContext)
	var version struct{ GitVersion string }
	s.Must(cluster.Do(t.Context(), client, http.MethodGet, "https://10.96.0.1/version", nil, &version))
	if version.GitVersion == "" {
		t.Error("no version")
	}
}
