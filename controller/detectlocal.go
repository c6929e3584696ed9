// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"

	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// LocalMode is a way to tell the traffic of pods on this node from all other
// (KubeProxyConfiguration, detectLocalMode).
type LocalMode string

// The modes, in kube-proxy's words.
const (
	// LocalByClusterCIDR: by the source address, which is one of any pod's.
	LocalByClusterCIDR LocalMode = "ClusterCIDR"
	// LocalByNodeCIDR: by the source address, which is one of this node's pods.
	LocalByNodeCIDR LocalMode = "NodeCIDR"
	// LocalByBridge: by the interface that it comes from.
	LocalByBridge LocalMode = "BridgeInterface"
	// LocalByInterfacePrefix: by how the name of that interface begins.
	LocalByInterfacePrefix LocalMode = "InterfaceNamePrefix"
)

// DetectLocal says which traffic is that of pods on this node.
type DetectLocal struct {
	Mode LocalMode
	// CIDRs are for LocalByClusterCIDR: of each family one, or none.
	CIDRs [model.Families]netip.Prefix
	// Interface is for LocalByBridge the bridge's name, and for
	// LocalByInterfacePrefix the beginning of names.
	Interface string
}

// Pods returns how packets of local pods are known in a family. Where nothing
// tells, no traffic is known to be local, and none not to be, as in kube-proxy;
// node may be nil.
func (d DetectLocal) Pods(f nft.Family, node *model.Node) nft.LocalPods {
	family := compile.ModelFamily(f)
	switch {
	case d.Mode == LocalByClusterCIDR:
		return nft.LocalPods{Prefix: d.CIDRs[family]}
	case d.Mode == LocalByNodeCIDR && node != nil:
		return nft.LocalPods{Prefix: node.PodCIDRs[family]}
	case d.Mode == LocalByBridge:
		return nft.LocalPods{Interface: d.Interface}
	case d.Mode == LocalByInterfacePrefix:
		return nft.LocalPods{Interface: d.Interface + "*"}
	}
	return nft.LocalPods{}
}

// setLocalPods follows the node's CIDRs of pods. The rules depend on them, so a
// table with others is made anew; kube-proxy ends in this case, and waits for them
// at its start. Until they come nobody is masqueraded.
func (c *Controller) setLocalPods() {
	if c.config.DetectLocal.Mode != LocalByNodeCIDR {
		return
	}
	for _, t := range c.tables {
		o := t.schema.Options
		o.LocalPods = c.localPods(t)
		t.setOptions(o)
	}
}

// localPods is how packets of local pods are known in a table, and says once if they
// are to be known by CIDRs of the Node that it does not have.
func (c *Controller) localPods(t *table) nft.LocalPods {
	pods := c.config.DetectLocal.Pods(t.schema.Family, c.node)
	missing := c.config.DetectLocal.Mode == LocalByNodeCIDR && !pods.Known()
	if missing && !t.warned {
		c.log.Warn("the Node has no spec.podCIDRs of this family, so that nobody is masqueraded on the way to cluster IPs; "+
			"set them, or use another detectLocalMode (--detect-local-mode)", "family", t.schema.Family.String())
	}
	t.warned = missing
	return pods
}
