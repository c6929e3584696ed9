// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// Ports of the Services that have something special, one of each kind.
const (
	nodePort      = 30080
	localNodePort = 30081
	sinkPort      = 5001 // swallows
	echoPort      = 5002 // answers
)

// Addresses of these Services, and of their endpoints.
var (
	nodePortIP = netip.MustParseAddr("10.0.3.1")
	localIP    = netip.MustParseAddr("10.0.3.2")
	affinityIP = netip.MustParseAddr("10.0.3.3")
	flowIP     = netip.MustParseAddr("10.0.3.4")

	flowEndpoint = netip.MustParseAddr("10.188.0.1")
)

// specialEndpoints are how many endpoints each of them has, but for that of one flow.
const specialEndpoints = 10

// special are Services with a property that costs packets something, of everybody or
// of theirs. The endpoints of the one with the policy Local are on the nodes.
func special(nodes []*site.Node) iter.Seq[shape.Object] {
	http := shape.ServicePort("http", corev1.ProtocolTCP, shape.Port, shape.TargetPort)

	exposed := shape.NewService("default", "special-nodeport", nodePortIP, http)
	exposed.Spec.Type, exposed.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, nodePort

	local := shape.NewService("default", "special-local", localIP, http)
	local.Spec.Type, local.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, localNodePort
	local.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal

	sticky := shape.NewService("default", "special-affinity", affinityIP, http)
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	sticky.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{
		TimeoutSeconds: new(corev1.DefaultClientIPServiceAffinitySeconds)}}

	flow := shape.NewService("default", "special-flow", flowIP,
		shape.ServicePort("sink", corev1.ProtocolTCP, sinkPort, sinkPort),
		shape.ServicePort("echo", corev1.ProtocolTCP, echoPort, echoPort))

	var onNodes []netip.Addr
	for i := range nodes {
		for j := range specialEndpoints {
			onNodes = append(onNodes, netip.AddrFrom4([4]byte{10, 189, byte(2 + i), byte(1 + j)}))
		}
	}
	localSlice := shape.NewSlice(local, 0, onNodes...)
	for i := range localSlice.Endpoints {
		localSlice.Endpoints[i].NodeName = &nodes[i/specialEndpoints].Name
	}
	return slices.Values([]shape.Object{
		exposed, shape.NewSlice(exposed, 0, endpoints(0)...),
		local, localSlice,
		sticky, shape.NewSlice(sticky, 0, endpoints(1)...),
		flow, shape.NewSlice(flow, 0, flowEndpoint),
	})
}

// endpoints are those of a special Service.
func endpoints(of byte) (all []netip.Addr) {
	for j := range specialEndpoints {
		all = append(all, netip.AddrFrom4([4]byte{10, 189, of, byte(1 + j)}))
	}
	return all
}

// bare returns a table that does what a proxy would, with one rule for one Service. The
// client's way to a node port needs a second, since the answer must come back.
func bare(target netip.AddrPort, masquerade bool) string {
	table := fmt.Sprintf(`table ip bare {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		ip daddr %s tcp dport %d dnat to %s:%d
	}
`, target.Addr(), target.Port(), flowEndpoint, shape.TargetPort)
	if masquerade {
		table += `	chain postrouting {
		type nat hook postrouting priority srcnat;
		ct status dnat masquerade fully-random
	}
`
	}
	return table + "}\n"
}

// untranslated is a table that makes a node track connections, and nothing else.
const untranslated = `table ip none {
	chain forward {
		type filter hook forward priority filter;
		ct state invalid drop
	}
}
`
