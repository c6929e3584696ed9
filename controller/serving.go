// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
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

// HealthPorts answers load balancers at the health check node ports of Services;
// health.Services is one. It is told of Services after the pass that programmed
// them; the calls must not wait.
type HealthPorts interface {
	// SetAddrs says at which addresses of a family to answer; the unspecified one is
	// everywhere.
	SetAddrs(model.Family, []netip.Addr)
	// Set says how many ready endpoints of a Service are here. Those without a health
	// check node port are told too.
	Set(s *model.Service, f model.Family, endpoints int)
	// Delete says that a Service is gone; there may have been none.
	Delete(types.NamespacedName)
}

// Health is told how far the tables follow; health.Proxy is one. The calls must not
// wait.
type Health interface {
	// Begun says that a pass begins: something may have come in that is not
	// programmed. After a pass that fails there is another one.
	Begun()
	// Updated says that the pass has programmed all.
	Updated()
	// SetNode says whether there is an object of this node, and whether the node is
	// leaving.
	SetNode(known, leaving bool)
}

// noteService remembers to tell those who serve at the node itself of a Service
// once it is programmed.
func (c *Controller) noteService(e *model.Entry) {
	if c.config.LocalPorts != nil || c.config.HealthPorts != nil {
		c.untold[e.Name] = e
	}
}

// tellServices tells them of the Services that were noted.
func (c *Controller) tellServices() {
	for name, e := range c.untold {
		if c.config.LocalPorts != nil {
			c.tellLocalPorts(name, e)
		}
		if c.config.HealthPorts != nil {
			c.tellHealthPorts(name, e)
		}
	}
	clear(c.untold)
}

func (c *Controller) tellLocalPorts(name types.NamespacedName, e *model.Entry) {
	if e.Service == nil {
		c.config.LocalPorts.Delete(name)
		return
	}
	var ports []model.NodePort
	for _, t := range c.tables {
		ports = append(ports, e.NodePorts(t.desired.Model(), c.zone())...)
	}
	c.config.LocalPorts.Set(e.Service, ports)
}

func (c *Controller) tellHealthPorts(name types.NamespacedName, e *model.Entry) {
	if e.Service == nil {
		c.config.HealthPorts.Delete(name)
		return
	}
	for _, t := range c.tables {
		endpoints := 0
		if e.Service.HealthCheckNodePort != 0 {
			endpoints = e.LocalReady(t.desired.Model())
		}
		c.config.HealthPorts.Set(e.Service, t.desired.Model(), endpoints)
	}
}

// tellAddrs tells HealthPorts where node ports are served: there it answers.
func (c *Controller) tellAddrs(t *table) {
	if c.config.HealthPorts == nil {
		return
	}
	addrs := t.desired.NodeIPs()
	if c.config.NodePorts.All(t.schema.Family) {
		addrs = []netip.Addr{netip.IPv4Unspecified()}
		if t.schema.Family == nft.IPv6 {
			addrs[0] = netip.IPv6Unspecified()
		}
	}
	c.config.HealthPorts.SetAddrs(t.desired.Model(), addrs)
}

// tellNode tells Health of the node. A Node object that is deleted keeps its last
// word in all else: the machine is still here.
func (c *Controller) tellNode(in changes) {
	switch {
	case in.nodeGone:
		c.config.Health.SetNode(false, false)
	case in.node != nil:
		c.config.Health.SetNode(true, in.node.Leaving)
	}
}

// noHealth is a Health that nobody asks.
type noHealth struct{}

func (noHealth) Begun()             {}
func (noHealth) Updated()           {}
func (noHealth) SetNode(bool, bool) {}
