// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/process"
)

// kubeProxyAccount is who kube-proxy is where kubeadm has set it up.
var kubeProxyAccount = cluster.ServiceAccount("kube-system", "kube-proxy")

// programmed is what kube-nft's log says when the tables are as they should be for
// the first time.
const programmed = "everything is programmed"

// Where kubelets and load balancers ask.
const (
	healthz = "http://127.0.0.1:10256/healthz"
	livez   = "http://127.0.0.1:10256/livez"
	readyz  = "http://127.0.0.1:10256/readyz"
)

// startAgent starts kube-nft on a node.
func (s *site) startAgent(n *node, flags ...string) *process.Process {
	s.t.Helper()
	return process.Start(s.t, n.Namespace, process.KubeNFT(), append([]string{"run",
		"--kubeconfig", s.kubeconfig,
		"--hostname-override", n.Name(),
		"--cluster-cidr", clusterCIDR,
		"--conntrack-max-per-core", "0", // that is the machine's
		"--logging-format", "json", "--v", "2"}, flags...)...)
}

// runAgents starts kube-nft on all nodes, and waits until it has done its work.
func (s *site) runAgents(flags ...string) (all []*process.Process) {
	s.t.Helper()
	for _, n := range s.nodes {
		all = append(all, s.startAgent(n, flags...))
	}
	for _, p := range all {
		p.Await(soon, programmed)
	}
	return all
}
