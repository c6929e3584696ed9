// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/tests/process"
)

// settings are what both proxies are told.
type settings struct {
	detectLocal       string // a mode; empty is ClusterCIDR
	ofInterface       string // what an interface mode wants: a name, or how names begin
	clusterCIDR       string
	localhost         bool   // node ports at localhost, too
	nodePortAddresses string // as on the command line
	masqueradeAll     bool
	masqueradeBit     int
}

// defaults are what a test that is not about settings uses.
var defaults = settings{clusterCIDR: clusterCIDR, nodePortAddresses: "primary", masqueradeBit: 14}

// runOurs starts kube-nft.
func (s *site) runOurs(t *testing.T, kubeconfig string, c settings) *process.Process {
	t.Helper()
	args := []string{"run",
		"--kubeconfig", kubeconfig,
		"--hostname-override", nodeName,
		"--nodeport-addresses", c.nodePortAddresses,
		"--iptables-masquerade-bit", fmt.Sprint(c.masqueradeBit),
		"--conntrack-max-per-core", "0",
		"--v", "2"}
	if c.clusterCIDR != "" {
		args = append(args, "--cluster-cidr", c.clusterCIDR)
	}
	if c.masqueradeAll {
		args = append(args, "--masquerade-all")
	}
	if c.localhost {
		args = append(args, "--localhost-nodeports")
	}
	if c.detectLocal != "" {
		args = append(args, "--detect-local-mode", c.detectLocal)
	}
	switch c.detectLocal {
	case "BridgeInterface":
		args = append(args, "--pod-bridge-interface", c.ofInterface)
	case "InterfaceNamePrefix":
		args = append(args, "--pod-interface-name-prefix", c.ofInterface)
	}
	return process.Start(t, s.node, process.KubeNFT(), args...)
}

// runTheirs starts kube-proxy.
func (s *site) runTheirs(t *testing.T, path, kubeconfig string, c settings) *process.Process {
	t.Helper()
	nodePortAddresses := strings.Split(c.nodePortAddresses, ",")
	if c.localhost {
		nodePortAddresses = append(nodePortAddresses, "localhost")
	}
	file := process.WriteProxyConfig(t, kubeconfig, nodeName, map[string]any{
		"clusterCIDR":       c.clusterCIDR,
		"detectLocalMode":   c.detectLocal,
		"detectLocal":       map[string]any{"bridgeInterface": c.ofInterface, "interfaceNamePrefix": c.ofInterface},
		"nodePortAddresses": nodePortAddresses,
		"featureGates":      map[string]bool{"KubeProxyNFTablesLocalhostNodePorts": c.localhost},
		"nftables": map[string]any{
			"minSyncPeriod": "1ms", "syncPeriod": "1s",
			"masqueradeAll": c.masqueradeAll, "masqueradeBit": c.masqueradeBit,
		},
	})
	return process.Start(t, s.node, path, "--config", file)
}
