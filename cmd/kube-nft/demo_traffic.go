// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// How much the demo sends.
const (
	perRoute    = 500 // connections on each route
	parallel    = 8
	askTimeout  = 3 * time.Second
	awaitWithin = 20 * time.Second
)

// route is a way to a Service port: from where, and by which of its addresses.
type route struct {
	service *demoService
	port    model.ServicePort
	from    *netlab.Namespace
	to      string           // what the addresses are
	addrs   []netip.AddrPort // one of each family
}

// routes lists the ways to all Service ports that have endpoints.
func routes(services []*demoService, c *cluster) []route {
	var all []route
	for _, s := range services {
		for _, p := range s.Ports {
			for _, to := range frontends(s, p, c) {
				for _, from := range []*netlab.Namespace{c.client, c.shop} {
					if len(s.pods) > 0 {
						all = append(all, route{s, p, from, to.name, to.addrs})
					}
				}
			}
		}
	}
	return all
}

type frontend struct {
	name  string
	addrs []netip.AddrPort
}

// frontends lists the kinds of addresses of a Service port.
func frontends(s *demoService, p model.ServicePort, c *cluster) []frontend {
	var all []frontend
	add := func(name string, addrs []netip.Addr, port uint16) {
		f := frontend{name: name}
		for _, a := range c.usable(valid(addrs)) {
			f.addrs = append(f.addrs, netip.AddrPortFrom(a, port))
		}
		if port != 0 && len(f.addrs) > 0 {
			all = append(all, f)
		}
	}
	add("cluster IP", s.ClusterIPs[:], p.Port)
	add("node port", servedAddrs(s), p.NodePort)
	add("load balancer", s.LoadBalancerIPs, p.Port)
	add("external IP", s.ExternalIPs, p.Port)
	return all
}

// servedAddrs are the node's addresses of the families of a Service.
func servedAddrs(s *demoService) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(nodeAddrs), func(a netip.Addr) bool {
		return !s.ClusterIPs[model.FamilyOf(a)].IsValid()
	})
}

// send opens n connections, to the addresses in turn.
func (r route) send(ctx context.Context, n int) netlab.Tally {
	return netlab.Many(ctx, n, parallel, func(i int) (netlab.Answer, error) {
		return r.from.Ask(ctx, network(r.port.Protocol), r.addrs[i%len(r.addrs)], netlab.Timeout(askTimeout))
	})
}

// firstProbe is below the ports that the kernel chooses for clients. What is sent
// before there is a table is tracked without a translation, for two minutes, and
// a later connection from the same port would share that fate.
const firstProbe = 20000

// await waits until the route answers as it should: refused, if the Service has
// no endpoints.
func (r route) await(ctx context.Context) error {
	var timeout time.Duration
	port := uint16(firstProbe)
	for _, a := range r.addrs {
		err := netlab.Poll(awaitWithin, func() error {
			if ctx.Err() != nil {
				return nil
			}
			timeout = min(timeout+5*time.Millisecond, time.Second) // too early is lost
			port++
			_, err := r.from.Ask(ctx, network(r.port.Protocol), a, netlab.Timeout(timeout), netlab.FromPort(port))
			if len(r.service.pods) == 0 {
				return unlessRefused(err)
			}
			return err
		})
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
	}
	return nil
}

func unlessRefused(err error) error {
	switch {
	case errors.Is(err, netlab.ErrRefused):
		return nil
	case err == nil:
		return errors.New("somebody answered, though there are no endpoints")
	}
	return err
}

// clusterIPRoutes lists the ways from the client to every cluster IP.
func (d *demonstration) clusterIPRoutes() []route {
	var all []route
	for _, s := range d.services {
		for _, p := range s.Ports {
			if to := frontends(s, p, d.cluster); len(to) > 0 {
				all = append(all, route{s, p, d.cluster.client, to[0].name, to[0].addrs})
			}
		}
	}
	return all
}

// sendTraffic sends connections on all routes and shows who answered.
func (d *demonstration) sendTraffic(ctx context.Context) error {
	s := d.screen
	s.heading("Who answers, and whom it sees (client is outside, shop is a pod)")
	all := routes(d.services, d.cluster)
	for first := 0; first < len(all); {
		last := first
		for last < len(all) && all[last].service == all[first].service && all[last].port == all[first].port {
			last++
		}
		if first > 0 {
			s.line("")
		}
		if err := d.sendTo(ctx, all[first:last]); err != nil {
			return err
		}
		first = last
	}
	return nil
}

// sendTo sends connections on all routes to one Service port.
func (d *demonstration) sendTo(ctx context.Context, rs []route) error {
	s, name := d.screen, fmt.Sprintf("%s, %s", rs[0].service.Name.Name, portName(rs[0].port))
	answers := make(map[string]int)
	rows := [][]string{{"FROM", "TO           ", "SENT", "THE PODS SEE"}}
	begin := time.Now()
	for i, r := range rs {
		s.progress("%s: %s of %s connections", name, count(i*perRoute), count(len(rs)*perRoute))
		t := r.send(ctx, perRoute)
		d.connections += t.Answered()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if t.Failed() > 0 {
			return fmt.Errorf("%s from %s by its %s: %s", name, r.from.Name(), r.to, t)
		}
		for server, n := range t.Servers {
			answers[server] += n
		}
		rows = append(rows, append([]string{r.from.Name(), r.to, fmt.Sprintf("%4s", count(t.Answered()))}, d.sources(r, t)...))
	}
	s.line("%s: %s connections over %s in %s, 0 failed", s.bold(name), count(len(rs)*perRoute),
		d.cluster.familyNames(), duration(time.Since(begin)))
	s.line("")
	s.bars(rs[0].service.pods, answers)
	s.line("")
	s.columns("  ", rows)
	return nil
}

// sources says from where the pods saw connections come.
func (d *demonstration) sources(r route, t netlab.Tally) []string {
	seen := slices.SortedFunc(maps.Keys(t.Sources), netip.Addr.Compare)
	var owners []string
	for _, a := range seen {
		if o := d.cluster.owner(a); !slices.Contains(owners, o) {
			owners = append(owners, o)
		}
	}
	who := strings.Join(owners, ", ")
	what := who + ", masqueraded"
	if who == r.from.Name() {
		what = who + " itself"
	}
	return []string{what, strings.Join(words(seen), " ")}
}

// familyNames says over what connections go.
func (c *cluster) familyNames() string {
	if len(c.families) == 1 {
		return "IPv4"
	}
	return "IPv4 and IPv6"
}

// askNobody asks the Services without endpoints and shows how fast they refuse.
func (d *demonstration) askNobody(ctx context.Context) error {
	const times = 50
	said := false
	for _, r := range d.clusterIPRoutes() {
		if len(r.service.pods) > 0 || r.port.Protocol == model.SCTP {
			continue
		}
		if !said {
			d.screen.heading("Nobody there: a Service without endpoints")
			said = true
		}
		for _, a := range r.addrs {
			took := make([]time.Duration, times)
			for i := range took {
				begin := time.Now()
				_, err := r.from.Ask(ctx, network(r.port.Protocol), a, netlab.Timeout(askTimeout))
				took[i] = time.Since(begin)
				if err := unlessRefused(err); err != nil {
					return fmt.Errorf("%s at %s, which has no endpoints, is not refused: %w", r.service.Name, a, err)
				}
			}
			d.refused += times
			slices.Sort(took)
			d.screen.line("%-8s %-6s %-22s refused at once, in %s", r.service.Name.Name, portName(r.port), a, duration(took[times/2]))
		}
	}
	return nil
}

// splitFamilies returns the tables of a ruleset but the IPv6 one, and a line
// about that one.
func splitFamilies(ruleset string) (rules, summary string) {
	head, tail, found := strings.Cut(ruleset, "table "+nft.IPv6.String()+" ")
	if !found {
		return ruleset, ""
	}
	tail = strings.TrimSpace(tail)
	return head, fmt.Sprintf("table %s %s { … }   the same for IPv6, %d lines", nft.IPv6, nft.TableName, strings.Count(tail, "\n")+1)
}
