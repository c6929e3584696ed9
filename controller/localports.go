// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
)

// LocalPorts serves node ports on loopback, where packets cannot be translated;
// localport.Relay is one. It is told of Services after the pass that programmed
// them; the calls must not wait.
type LocalPorts interface {
	// Set replaces what is known of a Service. Those without node ports are told too.
	Set(s *model.Service, ports []model.NodePort)
	// Delete says that a Service is gone; there may have been none.
	Delete(name types.NamespacedName)
}

// noteLocalPorts remembers to tell LocalPorts of a Service once it is programmed.
func (c *Controller) noteLocalPorts(e *model.Entry) {
	if c.config.LocalPorts != nil {
		c.untold[e.Name] = e
	}
}

// tellLocalPorts tells LocalPorts of the Services that were noted.
func (c *Controller) tellLocalPorts() {
	for name, e := range c.untold {
		if e.Service == nil {
			c.config.LocalPorts.Delete(name)
			continue
		}
		var ports []model.NodePort
		for _, t := range c.tables {
			ports = append(ports, e.NodePorts(t.desired.Model(), c.zone())...)
		}
		c.config.LocalPorts.Set(e.Service, ports)
	}
	clear(c.untold)
}
