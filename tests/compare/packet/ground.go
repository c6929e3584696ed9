// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// Clients are inside, where pods of the node are, or outside of the cluster. Those of a
// Service with affinity are few enough to come again.
var (
	inside  = netip.MustParsePrefix("10.251.0.0/16")
	outside = netip.MustParsePrefix("198.19.0.0/16")
	regular = netip.MustParsePrefix("10.251.0.0/20")
)

// ground is where all lanes are for one shape: those of the proxies, and beside them
// one without translation, and one with a single rule, twice.
type ground struct {
	api   *site.API
	shape shape.Shape
	log   *slog.Logger

	none, bare, bareNodePort *place
	alone                    *place // nil without IPVS
	peers                    []*place
}

// place is a node with its lane.
type place struct {
	name  string
	node  *site.Node
	meter *meter
}

// newGround starts an API server with a cluster's objects, and the proxies at it.
func newGround(ctx context.Context, log *slog.Logger, s shape.Shape) (*ground, error) {
	api, err := site.StartAPI(ctx, log)
	if err != nil {
		return nil, err
	}
	g := &ground{api: api, shape: s, log: log}
	if err := errors.Join(api.Load(ctx, s), g.addBare(ctx), g.addAlone(ctx)); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

func (g *ground) addBare(ctx context.Context) error {
	for _, p := range []struct {
		at    **place
		name  string
		table func(*site.Node) string
	}{
		{&g.none, proxyNone, func(*site.Node) string { return untranslated }},
		{&g.bare, proxyBare, func(*site.Node) string { return bare(g.shape.Frontend(0), false) }},
		{&g.bareNodePort, proxyBare, func(n *site.Node) string {
			return bare(netip.AddrPortFrom(n.Addr, nodePort), true)
		}},
	} {
		made, err := g.place(ctx, p.name)
		if err != nil {
			return err
		}
		*p.at = made
		if err := made.node.Router.NFT(p.table(made.node)); err != nil {
			return err
		}
	}
	return nil
}

// place makes a node with a lane.
func (g *ground) place(ctx context.Context, name string) (*place, error) {
	n, err := g.api.NewNode(ctx)
	if err != nil {
		return nil, err
	}
	p := &place{name: name, node: n}
	if err := p.deafen(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return p, nil
}

// deafen makes the pods of a place deaf, and the place fit to be measured.
func (p *place) deafen() (err error) {
	p.meter, err = newMeter(Lane{
		Client: p.node.Client, Node: p.node.Router, Pods: p.node.Pods,
		ClientIf: "eth0", ToClient: site.ToClient, ToPods: site.ToPods, PodsIf: "eth0",
	})
	return err
}

// hear ends that.
func (p *place) hear() error {
	m := p.meter
	p.meter = nil
	if m == nil {
		return nil
	}
	return m.close()
}

// start starts proxies, and waits until each serves all Services, or not any longer.
// Those that do not are skipped, and noted as beaten: a larger cluster need not be tried.
func (g *ground) start(ctx context.Context, peers []peer.Peer, limit time.Duration, beaten map[string]string, f *result.File) error {
	for _, p := range peers {
		at, err := g.place(ctx, p.Name)
		if err != nil {
			return err
		}
		g.peers = append(g.peers, at)
		// One after the other: those that take long are to have the machine alone.
		began := time.Now()
		running, err := at.node.Start(ctx, p)
		if err != nil {
			return err
		}
		err = g.await(ctx, at, traffic{inside, g.frontends()}, limit, running.Gone)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			g.log.Warn("left out", "proxy", p.Name, "shape", g.shape.Name, "why", err)
			f.Skip(result.Skip{Section: "packet", Proxy: p.Name, Shape: g.shape.Name, What: "everything", Why: err.Error()})
			beaten[p.Name] = fmt.Sprintf("%s: %v", g.shape.Name, err)
			if err := g.remove(at); err != nil {
				return err
			}
			continue
		}
		g.log.Info("serves all", "proxy", p.Name, "shape", g.shape.Name, "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// await waits until packets to all targets arrive. It asks all of them only once the
// last is reached.
func (g *ground) await(ctx context.Context, p *place, t traffic, limit time.Duration, gone func() error) error {
	flows := t.each(1)
	deadline := time.Now().Add(limit)
	for {
		if err := errors.Join(ctx.Err(), gone()); err != nil {
			return err
		}
		ok, err := p.meter.reaches(flows[len(flows)-1:])
		if ok && err == nil {
			ok, err = p.meter.reaches(flows)
		}
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not all Services are served after %s", limit)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// remove closes a place of a peer.
func (g *ground) remove(p *place) error {
	for i, other := range g.peers {
		if other == p {
			g.peers = append(g.peers[:i], g.peers[i+1:]...)
			break
		}
	}
	return p.close()
}

// expose adds the special Services, and waits until the proxies serve them.
func (g *ground) expose(ctx context.Context, limit time.Duration, f *result.File) error {
	var nodes []*site.Node
	for _, p := range g.peers {
		nodes = append(nodes, p.node)
	}
	if _, err := g.api.Create(ctx, special(nodes)); err != nil {
		return fmt.Errorf("create special Services: %w", err)
	}
	for _, p := range append([]*place(nil), g.peers...) {
		targets := []netip.AddrPort{
			netip.AddrPortFrom(p.node.Addr, nodePort), netip.AddrPortFrom(p.node.Addr, localNodePort),
			netip.AddrPortFrom(affinityIP, shape.Port), netip.AddrPortFrom(flowIP, sinkPort), netip.AddrPortFrom(flowIP, echoPort),
		}
		err := g.await(ctx, p, traffic{outside, targets}, limit, func() error { return nil })
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			f.Skip(result.Skip{Section: "packet", Proxy: p.name, Shape: g.shape.Name, What: "special Services", Why: err.Error()})
			if err := g.remove(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// places are all that there are.
func (g *ground) places() []*place {
	var all []*place
	for _, p := range append([]*place{g.none, g.bare, g.bareNodePort, g.alone}, g.peers...) {
		if p != nil {
			all = append(all, p)
		}
	}
	return all
}

func (p *place) close() error { return errors.Join(p.hear(), p.node.Close()) }

// close ends everything.
func (g *ground) close() error {
	var errs []error
	for _, p := range g.places() {
		errs = append(errs, p.close())
	}
	return errors.Join(append(errs, g.api.Close())...)
}
