// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

const (
	typeNodePort     = corev1.ServiceTypeNodePort
	typeLoadBalancer = corev1.ServiceTypeLoadBalancer
	typeExternalName = corev1.ServiceTypeExternalName
	tcp              = corev1.ProtocolTCP
	udp              = corev1.ProtocolUDP
)

// own is an ingress of each family that no other Service has.
var own = []ingress{{ip: "own"}}

// one is a list of one slice.
func one(endpoints ...endpoint) [][]endpoint { return [][]endpoint{endpoints} }

// fixed returns all the cases. Each is a Service of its own, with addresses and node
// ports of its own, so that all can be there at once.
func fixed() (all []*plan) {
	for _, group := range [][]*plan{crossed(), frontends(), ranged(), sticky(), selected(), sliced()} {
		all = append(all, group...)
	}
	for i, p := range all {
		p.index = i + 1
	}
	return all
}

// crossed are policies by endpoints, each with every kind of frontend (A2.2 to A2.5, A3.1
// to A3.6, A3.11).
func crossed() (all []*plan) {
	for _, endpoints := range []struct {
		name   string
		slices [][]endpoint
	}{
		{"no-slice", nil},
		{"empty", one()},
		{"unready", one(endpoint{pod: "a", state: starting}, endpoint{pod: "c", state: gone})},
		{"local", one(endpoint{pod: "a"})},
		{"remote", one(endpoint{pod: "c"}, endpoint{pod: "d"})},
		{"both", one(endpoint{pod: "a"}, endpoint{pod: "b"}, endpoint{pod: "c"})},
		{"local-ends", one(endpoint{pod: "a", state: terminating}, endpoint{pod: "c"})},
		{"remote-ends", one(endpoint{pod: "a"}, endpoint{pod: "c", state: terminating})},
		{"all-end", one(endpoint{pod: "a", state: terminating}, endpoint{pod: "c", state: terminating}, endpoint{pod: "d", state: gone})},
		{"only-remote-ends", one(endpoint{pod: "a", state: starting}, endpoint{pod: "c", state: terminating})},
	} {
		for _, policy := range []struct {
			name     string
			etp, itp bool
		}{{"", false, false}, {"-etp", true, false}, {"-itp", false, true}, {"-etp-itp", true, true}} {
			all = append(all, &plan{
				name: endpoints.name + policy.name, typ: typeLoadBalancer, etp: policy.etp, itp: policy.itp,
				external: []string{"own"}, ingress: own, slices: endpoints.slices,
			})
		}
	}
	return all
}

// frontends are types, families, addresses and ports (A1.1, A1.2, A1.5, A1.9 to A1.11,
// A1.15, A1.16).
func frontends() []*plan {
	both := one(endpoint{pod: "a"}, endpoint{pod: "c"})
	secondary := otherAddrs[0].String() + " " + otherAddrs[1].String()
	primary := nodeAddrs[0].String() + " " + nodeAddrs[1].String()
	return []*plan{
		{name: "clusterip", slices: both},
		{name: "clusterip-itp", itp: true, slices: one(endpoint{pod: "c"})},
		{name: "externalips", external: []string{"own"}, slices: both},
		{name: "externalips-etp", external: []string{"own"}, etp: true, slices: both},
		{name: "externalips-etp-remote", external: []string{"own"}, etp: true, slices: one(endpoint{pod: "c"})},
		{name: "nodeport", typ: typeNodePort, slices: both},
		{name: "nodeport-etp", typ: typeNodePort, etp: true, slices: both},
		{name: "nodeport-etp-remote", typ: typeNodePort, etp: true, slices: one(endpoint{pod: "c"})},
		{name: "externalip-of-node", external: strings.Fields(secondary), slices: both},
		{name: "externalip-of-node-etp", etp: true, external: strings.Fields(secondary), ports: []port{{protocol: tcp, number: 81}}, slices: both},
		{name: "externalip-of-node-none", external: strings.Fields(secondary), ports: []port{{protocol: tcp, number: 82}}},
		{name: "externalip-primary", external: strings.Fields(primary), ports: []port{{protocol: tcp, number: 83}}, slices: both},
		{name: "v4", families: "4", typ: typeLoadBalancer, external: []string{"own"}, ingress: own, slices: both},
		{name: "v6", families: "6", typ: typeLoadBalancer, external: []string{"own"}, ingress: own, slices: both},
		{name: "v6-first", families: "64", typ: typeLoadBalancer, external: []string{"own"}, ingress: own, slices: both},
		{name: "mode-proxy", typ: typeLoadBalancer, slices: both, ingress: []ingress{{ip: "own", mode: corev1.LoadBalancerIPModeProxy}}},
		{name: "mode-proxy-etp", typ: typeLoadBalancer, etp: true, slices: one(endpoint{pod: "c"}), ingress: []ingress{{ip: "own", mode: corev1.LoadBalancerIPModeProxy}}},
		{name: "hostname", typ: typeLoadBalancer, slices: both, ingress: []ingress{{host: "lb.example.com"}}},
		{name: "pending", typ: typeLoadBalancer, slices: both},
		{name: "headless", headless: true, slices: both},
		{name: "external-name", typ: typeExternalName, slices: both},
		{name: "another-proxy", labels: map[string]string{proxyNameLabel: "another"}, typ: typeNodePort, slices: both},
		{name: "ports", typ: typeNodePort, slices: both, ports: []port{
			{name: "x", protocol: tcp, number: 80, target: 8080}, {name: "y", protocol: tcp, number: 81, target: 9090}, {name: "z", protocol: udp, number: 81, target: 9090}}},
		{name: "sctp", typ: typeNodePort, etp: true, slices: both, ports: []port{{protocol: corev1.ProtocolSCTP, number: 80}}},
		{name: "no-port-name", slices: both, ports: []port{{protocol: udp, number: 53}}},
	}
}

// ranged are loadBalancerSourceRanges (A1.12).
func ranged() (all []*plan) {
	for _, r := range []struct{ name, ranges string }{
		{"client", "198.51.100.2/32 2001:db8:1::2/128"},
		{"nobody", "192.0.2.128/25 2001:db8:ffff::/48"},
		{"pods", "10.244.0.0/16 fd00:10:244::/48"},
		{"node", "198.51.100.1/32 2001:db8:1::1/128"},
		{"v4-only", "198.51.100.2/32"},
		{"v6-only", "2001:db8:ffff::/48"},
		{"everybody", "192.0.2.128/25 0.0.0.0/0 ::/0"},
		{"overlap", "198.51.100.0/24 198.51.100.2/32 2001:db8:1::/64 2001:db8::/32"},
	} {
		for _, etp := range []bool{false, true} {
			p := &plan{name: "ranges-" + r.name, typ: typeLoadBalancer, etp: etp, ranges: strings.Fields(r.ranges),
				external: []string{"own"}, ingress: own, slices: one(endpoint{pod: "a"}, endpoint{pod: "c"})}
			if etp {
				p.name += "-etp"
			}
			all = append(all, p)
		}
	}
	return append(all,
		&plan{name: "ranges-unserved", typ: typeLoadBalancer, ranges: []string{"192.0.2.128/25", "2001:db8:ffff::/48"}, ingress: own},
		&plan{name: "ranges-etp-remote", typ: typeLoadBalancer, etp: true, ranges: []string{"192.0.2.128/25", "2001:db8:ffff::/48"}, ingress: own,
			slices: one(endpoint{pod: "c"})},
		&plan{name: "ranges-mode-proxy", typ: typeLoadBalancer, ranges: []string{"192.0.2.128/25", "2001:db8:ffff::/48"},
			ingress: []ingress{{ip: "own", mode: corev1.LoadBalancerIPModeProxy}}, slices: one(endpoint{pod: "a"})},
		&plan{name: "ranges-sticky", typ: typeLoadBalancer, affinity: 100, ranges: []string{"198.51.100.2/32", "2001:db8:1::2/128"}, ingress: own,
			slices: one(endpoint{pod: "a"}, endpoint{pod: "c"})})
}

// sticky are the session affinity by policies and endpoints (A3.12).
func sticky() (all []*plan) {
	for i, p := range []plan{
		{slices: one(endpoint{pod: "a"}, endpoint{pod: "b"}, endpoint{pod: "c"})},
		{etp: true, slices: one(endpoint{pod: "a"}, endpoint{pod: "b"}, endpoint{pod: "c"})},
		{itp: true, slices: one(endpoint{pod: "a"}, endpoint{pod: "b"}, endpoint{pod: "c"})},
		{etp: true, itp: true, slices: one(endpoint{pod: "c"}, endpoint{pod: "d"})},
		{slices: one(endpoint{pod: "a", state: terminating}, endpoint{pod: "c", state: terminating})},
		{slices: one()},
	} {
		p.name, p.typ, p.affinity, p.external, p.ingress = fmt.Sprintf("sticky-%d", i), typeLoadBalancer, 60, []string{"own"}, own
		all = append(all, &p)
	}
	return all
}

// selected are conditions and hints (A2.1, A2.6, A2.8). The node is in zone-a.
func selected() []*plan {
	zone := func(pod, zone string) endpoint { return endpoint{pod: pod, zones: []string{zone}} }
	node := func(pod, node string) endpoint { return endpoint{pod: pod, nodes: []string{node}} }
	exposed := func(p *plan) *plan {
		p.typ, p.ingress = typeLoadBalancer, own
		return p
	}
	return []*plan{
		{name: "hairpin-ends", itp: true, slices: one(endpoint{pod: "f", state: terminating}, endpoint{pod: "c"})},
		{name: "unset", slices: one(endpoint{pod: "a", state: unset}, endpoint{pod: "c", state: unset})},
		{name: "published", etp: true, typ: typeNodePort, slices: one(endpoint{pod: "a", state: published}, endpoint{pod: "c"})},
		{name: "published-all", slices: one(endpoint{pod: "a", state: published}, endpoint{pod: "c", state: published})},
		exposed(&plan{name: "zone", slices: one(zone("a", "zone-b"), zone("b", "zone-a"), zone("c", "zone-a"))}),
		exposed(&plan{name: "zone-etp", etp: true, slices: one(zone("a", "zone-b"), zone("b", "zone-b"), zone("c", "zone-a"))}),
		exposed(&plan{name: "zone-itp", itp: true, slices: one(zone("a", "zone-b"), zone("c", "zone-a"))}),
		exposed(&plan{name: "zone-other", slices: one(zone("a", "zone-b"), zone("c", "zone-c"))}),
		exposed(&plan{name: "zone-missing", slices: one(zone("a", "zone-b"), zone("c", "zone-a"), endpoint{pod: "d"})}),
		exposed(&plan{name: "zone-missing-unready", slices: one(zone("a", "zone-b"), zone("c", "zone-a"), endpoint{pod: "d", state: starting})}),
		exposed(&plan{name: "zone-ending", slices: one(endpoint{pod: "a", zones: []string{"zone-b"}, state: terminating}, endpoint{pod: "c", zones: []string{"zone-a"}, state: terminating})}),
		exposed(&plan{name: "zone-several", slices: one(endpoint{pod: "a", zones: []string{"zone-b", "zone-a"}}, zone("c", "zone-c"))}),
		exposed(&plan{name: "node", slices: one(node("a", nodeName), node("c", peerName))}),
		exposed(&plan{name: "node-other", slices: one(node("a", peerName), node("c", peerName))}),
		exposed(&plan{name: "node-and-zone", slices: one(
			endpoint{pod: "a", zones: []string{"zone-a"}, nodes: []string{peerName}}, endpoint{pod: "c", zones: []string{"zone-b"}, nodes: []string{peerName}})}),
		exposed(&plan{name: "node-partly", slices: one(
			endpoint{pod: "a", zones: []string{"zone-b"}, nodes: []string{nodeName}}, zone("c", "zone-a"))}),
		exposed(&plan{name: "node-etp", etp: true, slices: one(node("a", peerName), node("b", peerName), node("c", nodeName))}),
	}
}

// sliced are slices that a controller or a person may write (A2.9, A2.10, A1.16).
func sliced() []*plan {
	relabel := func(key, value string) func(*discoveryv1.EndpointSlice) {
		return func(s *discoveryv1.EndpointSlice) {
			if s.Labels[key] = value; value == "" {
				delete(s.Labels, key)
			}
		}
	}
	return []*plan{
		{name: "merged", slices: [][]endpoint{{{pod: "a"}}, {{pod: "b"}, {pod: "c"}}}},
		{name: "duplicate", slices: [][]endpoint{{{pod: "a"}, {pod: "c"}}, {{pod: "a"}}}},
		{name: "duplicate-ends", slices: [][]endpoint{{{pod: "a"}, {pod: "c"}}, {{pod: "a", state: terminating}}}},
		{name: "duplicate-ends-first", slices: [][]endpoint{{{pod: "a", state: terminating}, {pod: "c"}}, {{pod: "a"}}}},
		{name: "targets", slices: [][]endpoint{{{pod: "a"}}, {{pod: "c"}}}, tweak: func(s *discoveryv1.EndpointSlice) {
			if strings.HasSuffix(s.Name, "-1") {
				for i := range s.Ports {
					s.Ports[i].Port = new(int32(9090))
				}
			}
		}},
		{name: "homeless", typ: typeNodePort, etp: true, slices: one(endpoint{pod: "a", homeless: true}, endpoint{pod: "c", homeless: true})},
		{name: "homeless-itp", itp: true, slices: one(endpoint{pod: "a", homeless: true}, endpoint{pod: "b"})},
		{name: "homeless-hairpin", slices: one(endpoint{pod: "b", homeless: true}, endpoint{pod: "c"}), ports: []port{{protocol: tcp, number: 80, target: 9090}}},
		{name: "nobodys-slice", slices: one(endpoint{pod: "a"}), tweak: relabel(discoveryv1.LabelServiceName, "")},
		{name: "headless-slice", slices: one(endpoint{pod: "a"}), tweak: relabel(corev1.IsHeadlessService, "yes")},
		{name: "other-port-name", slices: one(endpoint{pod: "a"}), tweak: func(s *discoveryv1.EndpointSlice) {
			*s.Ports[0].Name = "other"
		}},
		{name: "port-without-number", slices: one(endpoint{pod: "a"}), tweak: func(s *discoveryv1.EndpointSlice) {
			s.Ports[0].Port = nil
		}},
		{name: "port-without-name", slices: one(endpoint{pod: "a"}), ports: []port{{protocol: tcp, number: 80}}, tweak: func(s *discoveryv1.EndpointSlice) {
			s.Ports[0].Name = nil
		}},
		{name: "no-ports", slices: one(endpoint{pod: "a"}), tweak: func(s *discoveryv1.EndpointSlice) { s.Ports = nil }},
		{name: "several-addresses", slices: one(endpoint{pod: "a"}), tweak: func(s *discoveryv1.EndpointSlice) {
			f := 0
			if s.AddressType == discoveryv1.AddressTypeIPv6 {
				f = 1
			}
			s.Endpoints[0].Addresses = append(s.Endpoints[0].Addresses, podAddrs(2)[f].String())
		}},
		{name: "host-network", typ: typeLoadBalancer, external: []string{"own"}, ingress: own, slices: one(endpoint{pod: "host-0"}, endpoint{pod: "host-1"})},
		{name: "host-network-etp", typ: typeLoadBalancer, etp: true, external: []string{"own"}, ingress: own, slices: one(endpoint{pod: "host-0"}, endpoint{pod: "host-1"})},
		{name: "host-network-itp", itp: true, slices: one(endpoint{pod: "host-0"}, endpoint{pod: "host-1"})},
	}
}
