// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// The addresses of the demo's network. Those of pods and Services come from the
// manifests; shop is a pod that no Service knows.
var (
	clientAddrs  = addrs("172.18.0.100", "fd00:172:18::100")
	nodeAddrs    = addrs("172.18.0.2", "fd00:172:18::2")
	gatewayAddrs = addrs("10.244.0.1", "fd00:10:244::1") // of the node, towards its pods
	shopAddrs    = addrs("10.244.0.10", "fd00:10:244::10")
)

const (
	podCIDRs  = "10.244.0.0/16,fd00:10:244::/64"
	nodeName  = "demo-node"
	maxPods   = 64 // a network namespace each
	shopName  = "shop"
	otherName = "client"
)

func addrs(words ...string) []netip.Addr {
	var all []netip.Addr
	for _, w := range words {
		all = append(all, netip.MustParseAddr(w))
	}
	return all
}

// cluster is the demo's network:
//
//	client  eth0 ── eth0  demo-node  pod0 ── eth0  shop
//	                                 pod1 ── eth0  web-a …
//
// Each pod has a link of its own and a route to everything through the node, as
// with the CNI plugin ptp. The client is the node's way to the outside.
type cluster struct {
	lab          *netlab.Lab
	families     []nft.Family
	client, node *netlab.Namespace
	shop         *netlab.Namespace
	pods         []*demoPod // in order of their names
}

// demoPod is a pod that serves.
type demoPod struct {
	name      string
	namespace *netlab.Namespace
	addrs     []netip.Addr
	listens   []listener
	servers   []*netlab.Server
}

// listener is a socket of a pod.
type listener struct {
	network string
	addr    netip.AddrPort
}

func newCluster(services []*demoService) (*cluster, error) {
	lab, err := netlab.New()
	if err != nil {
		return nil, err
	}
	c := &cluster{lab: lab, families: families(), pods: podsOf(services)}
	if err := c.build(); err != nil {
		_ = lab.Close() // the first error is the one that counts
		return nil, err
	}
	return c, nil
}

func (c *cluster) build() error {
	if len(c.pods) > maxPods {
		return fmt.Errorf("the manifests have %d pods, the demo makes at most %d", len(c.pods), maxPods)
	}
	if err := c.buildOutside(); err != nil {
		return err
	}
	var err error
	if c.shop, err = c.addPod(shopName, 0, shopAddrs); err != nil {
		return err
	}
	for i, p := range c.pods {
		if p.namespace, err = c.addPod(p.name, i+1, p.addrs); err != nil {
			return err
		}
		if err := p.serve(c); err != nil {
			return err
		}
	}
	return nil
}

// buildOutside makes the node and the client.
func (c *cluster) buildOutside() error {
	var err error
	if c.node, err = c.lab.Namespace(nodeName); err != nil {
		return err
	}
	if c.client, err = c.lab.Namespace(otherName); err != nil {
		return err
	}
	if err := netlab.Link(c.client, "eth0", c.node, "eth0"); err != nil {
		return err
	}
	for _, err := range []error{
		c.client.Addr("eth0", c.prefixes(clientAddrs, 24, 64)...),
		c.node.Addr("eth0", c.prefixes(nodeAddrs, 24, 64)...),
		c.client.DefaultRoute(c.usable(nodeAddrs)...),
		c.node.DefaultRoute(c.usable(clientAddrs)...),
		c.node.Forward(),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// addPod makes a namespace behind the node, at link number i.
func (c *cluster) addPod(name string, i int, addrs []netip.Addr) (*netlab.Namespace, error) {
	n, err := c.lab.Namespace(name)
	if err != nil {
		return nil, err
	}
	link := fmt.Sprintf("pod%d", i)
	if err := netlab.Link(c.node, link, n, "eth0"); err != nil {
		return nil, err
	}
	var inPod, onNode []string
	for _, gateway := range c.usable(gatewayAddrs) {
		inPod = append(inPod, fmt.Sprintf("route add %s dev eth0", gateway))
	}
	for _, a := range c.usable(addrs) {
		onNode = append(onNode, fmt.Sprintf("route add %s dev %s", a, link))
	}
	for _, err := range []error{
		c.node.Addr(link, c.prefixes(gatewayAddrs, 32, 128)...),
		c.node.IP(onNode...),
		n.Addr("eth0", c.prefixes(addrs, 32, 128)...),
		n.IP(inPod...),
		n.DefaultRoute(c.usable(gatewayAddrs)...),
	} {
		if err != nil {
			return nil, err
		}
	}
	return n, nil
}

// usable returns the addresses of the families that this kernel has.
func (c *cluster) usable(addrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool {
		return !slices.Contains(c.families, nft.FamilyOf(a))
	})
}

func (c *cluster) prefixes(addrs []netip.Addr, bits4, bits6 int) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range c.usable(addrs) {
		bits := bits4
		if a.Is6() {
			bits = bits6
		}
		all = append(all, netip.PrefixFrom(a, bits))
	}
	return all
}

// serve starts what listens in the pod.
func (p *demoPod) serve(c *cluster) error {
	for _, l := range p.listens {
		if len(c.usable([]netip.Addr{l.addr.Addr()})) == 0 {
			continue
		}
		s, err := p.namespace.Serve(l.network, l.addr, p.name)
		if err != nil {
			return err
		}
		p.servers = append(p.servers, s)
	}
	return nil
}

// shutDown ends what listens in the pod.
func (p *demoPod) shutDown() error {
	for _, s := range p.servers {
		if err := s.Close(); err != nil {
			return err
		}
	}
	p.servers = nil
	return nil
}

// owner says whose address a is.
func (c *cluster) owner(a netip.Addr) string {
	for _, o := range []struct {
		name  string
		addrs []netip.Addr
	}{{otherName, clientAddrs}, {shopName, shopAddrs}, {"node", nodeAddrs}, {"node", gatewayAddrs}} {
		if slices.Contains(o.addrs, a) {
			return o.name
		}
	}
	for _, p := range c.pods {
		if slices.Contains(p.addrs, a) {
			return p.name
		}
	}
	return "?"
}

// show draws the network.
func (c *cluster) show(s *screen) {
	left := [][2]string{{otherName, nodeName}}
	for i, a := range c.usable(clientAddrs) {
		left = append(left, [2]string{a.String(), c.usable(nodeAddrs)[i].String()})
	}
	right := [][]string{append([]string{shopName}, words(c.usable(shopAddrs))...)}
	for _, p := range c.pods {
		right = append(right, append([]string{p.name}, words(c.usable(p.addrs))...))
	}
	rows := make([][]string, max(len(left), len(right)))
	for i := range rows {
		row := []string{"", "", "", ""}
		if i < len(left) {
			row = []string{left[i][0], "", left[i][1], ""}
		}
		if i == 0 {
			row[1] = "──"
		}
		if i < len(right) {
			row[3] = branch(i, len(right))
			row = append(row, right[i]...)
		}
		rows[i] = row
	}
	s.columns(" ", rows)
}

// branch draws the node's side of the links to its pods.
func branch(i, n int) string {
	switch {
	case n == 1:
		return "────"
	case i == 0:
		return "──┬─"
	case i == n-1:
		return "  └─"
	}
	return "  ├─"
}

func words[T fmt.Stringer](values []T) []string {
	var all []string
	for _, v := range values {
		all = append(all, v.String())
	}
	return all
}

func joinLines(s string) string { return strings.Join(strings.Split(strings.TrimSpace(s), "\n"), ", ") }
