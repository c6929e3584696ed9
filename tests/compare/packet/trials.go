// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"math/rand/v2"
	"net/netip"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
)

// plain are the cases of a cluster in which no Service has anything special.
func (g *ground) plain() []trial {
	return []trial{
		g.trial("random", "", g.bare, g.shape.Frontend(0), inside, g.anyEndpoint, g.anyFrontend),
		g.alongside(g.trial("hot", "", g.bare, g.shape.Frontend(0), inside, g.anyEndpoint, g.oneFrontend)),
	}
}

// featured are the cases of one in which some have.
func (g *ground) featured() []trial {
	clusterIP := always(netip.AddrPortFrom(affinityIP, shape.Port))
	return []trial{
		g.trial("nodeport", "from outside, masqueraded; the bare rule has one that masquerades beside it",
			g.bareNodePort, netip.AddrPortFrom(g.bareNodePort.node.Addr, nodePort), outside, g.anyEndpoint, ofNode(nodePort)),
		g.trial("local", "from outside, by the node port of a Service with externalTrafficPolicy Local; not masqueraded",
			g.bare, g.shape.Frontend(0), outside, g.anyEndpoint, ofNode(localNodePort)),
		g.trial("affinity", "one Service with sessionAffinity ClientIP, 4,096 clients that come again",
			g.bare, g.shape.Frontend(0), regular, g.anyEndpoint, func(*place) func(int) []netip.AddrPort { return clusterIP }),
		g.trial("random-featured", "all Services without anything special, beside one with a node port, one with externalTrafficPolicy Local and one with affinity",
			g.bare, g.shape.Frontend(0), inside, g.anyEndpoint, g.anyFrontend),
	}
}

// aim says where the packets at a place go, in each round.
type aim func(*place) func(round int) []netip.AddrPort

func (g *ground) trial(name, note string, bare *place, target netip.AddrPort, sources netip.Prefix, untranslated, translated aim) trial {
	t := trial{name: name, note: note, bare: bare.meter, target: target, sources: sources}
	t.lanes = append(t.lanes, contender{proxyNone, g.none.meter, untranslated(g.none)})
	for _, p := range g.peers {
		t.lanes = append(t.lanes, contender{p.name, p.meter, translated(p)})
	}
	return t
}

// anyFrontend is all of the shape's Services.
func (g *ground) anyFrontend(*place) func(int) []netip.AddrPort { return always(g.frontends()...) }

func (g *ground) frontends() []netip.AddrPort {
	all := make([]netip.AddrPort, g.shape.Services)
	for i := range all {
		all[i] = g.shape.Frontend(i)
	}
	return all
}

// oneFrontend is one of them, another one in each round: there may be one that is
// found sooner than others.
func (g *ground) oneFrontend(*place) func(int) []netip.AddrPort {
	return func(round int) []netip.AddrPort {
		random := rand.New(rand.NewPCG(uint64(round), 1))
		return []netip.AddrPort{g.shape.Frontend(random.IntN(g.shape.Services))}
	}
}

// anyEndpoint is where a Service could lead.
func (g *ground) anyEndpoint(*place) func(int) []netip.AddrPort {
	all := make([]netip.AddrPort, min(g.shape.Endpoints, 1000))
	for i := range all {
		all[i] = netip.AddrPortFrom(shape.Endpoint(i), shape.TargetPort)
	}
	return always(all...)
}

// ofNode is a node port.
func ofNode(port uint16) aim {
	return func(p *place) func(int) []netip.AddrPort { return always(netip.AddrPortFrom(p.node.Addr, port)) }
}
