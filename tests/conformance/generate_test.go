// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"math/rand/v2"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// generator makes up a small cluster and changes to it. The same seed makes the same
// ones. Everything that it writes passes the API server's validation.
type generator struct {
	*rand.Rand
	plans []*plan
}

const generated = 6 // Services

func newGenerator(seed uint64) *generator {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0))}
	for i := range generated {
		g.plans = append(g.plans, &plan{name: fmt.Sprintf("svc-%d", i), index: i + 1, absent: true})
	}
	return g
}

// action is one change. It returns what it did in words, none if it does not apply.
type action func(g *generator, w *twins) string

// actions are those that there are, the frequent ones more than once.
var actions = []action{
	(*generator).changeService, (*generator).changeService, (*generator).changeService, (*generator).changeService,
	(*generator).changeEndpoints, (*generator).changeEndpoints, (*generator).changeEndpoints, (*generator).changeEndpoints,
	(*generator).make, (*generator).make, (*generator).makeAgain,
	(*generator).delete, (*generator).takeOver, (*generator).moveEndpoint, (*generator).moveNode, (*generator).restartOurs,
}

// step makes a few changes and returns what they are.
func (g *generator) step(w *twins) (did []string) {
	for n := 1 + g.IntN(4); n > 0; {
		if text := actions[g.IntN(len(actions))](g, w); text != "" {
			did = append(did, text)
			n--
		}
	}
	return did
}

// pick returns a plan whose Service is there, or is not; nil if there is none.
func (g *generator) pick(there bool) *plan {
	start := g.IntN(len(g.plans))
	for i := range g.plans {
		if p := g.plans[(start+i)%len(g.plans)]; p.absent != there {
			return p
		}
	}
	return nil
}

func (g *generator) make(w *twins) string {
	p := g.pick(false)
	if p == nil {
		return ""
	}
	return g.makeFrom(w, p)
}

// makeFrom makes a Service that is not there.
func (g *generator) makeFrom(w *twins, p *plan) string {
	*p = plan{name: p.name, index: p.index, families: oneOf(g, "46", "46", "64", "4", "6"), headless: g.chance(12)}
	for range 6 {
		g.mutate(p)
	}
	for range 1 + g.IntN(6) {
		g.mutateEndpoints(p)
	}
	w.write(p)
	return "make " + p.name
}

func (g *generator) delete(w *twins) string {
	p := g.pick(true)
	if p == nil {
		return ""
	}
	w.erase(p)
	p.absent = true
	return "delete " + p.name
}

// makeAgain deletes a Service and makes another of the name.
func (g *generator) makeAgain(w *twins) string {
	p := g.pick(true)
	if p == nil {
		return ""
	}
	w.erase(p)
	return g.makeFrom(w, p) + " again"
}

// takeOver deletes a Service, and another gets its addresses.
func (g *generator) takeOver(w *twins) string {
	from, to := g.pick(true), g.pick(false)
	if from == nil || to == nil {
		return ""
	}
	w.erase(from)
	from.absent = true
	from.index, to.index = to.index, from.index
	return fmt.Sprintf("%s in place of %s", g.makeFrom(w, to), from.name)
}

func (g *generator) changeService(w *twins) string {
	p := g.pick(true)
	if p == nil {
		return ""
	}
	did := g.mutate(p)
	w.write(p)
	return fmt.Sprintf("change %s: %s", p.name, did)
}

func (g *generator) changeEndpoints(w *twins) string {
	p := g.pick(true)
	if p == nil {
		return ""
	}
	did := g.mutateEndpoints(p)
	w.write(p)
	return fmt.Sprintf("change slices of %s: %s", p.name, did)
}

// moveEndpoint has an endpoint leave one Service and join another.
func (g *generator) moveEndpoint(w *twins) string {
	from, to := g.pick(true), g.pick(true)
	if from == nil || from == to || len(from.slices) == 0 || len(from.slices[0]) == 0 || to.has(from.slices[0][0].pod) {
		return ""
	}
	e := from.slices[0][0]
	from.slices[0] = slices.Delete(from.slices[0], 0, 1)
	to.slices = append(to.slices, []endpoint{e})
	w.write(from)
	w.write(to)
	return fmt.Sprintf("move %s from %s to %s", e.pod, from.name, to.name)
}

func (g *generator) moveNode(w *twins) string {
	zone := map[string]string{"zone-a": "zone-b", "zone-b": "zone-a"}[w.zone]
	w.setZone(zone)
	return "move the node to " + zone
}

func (g *generator) restartOurs(w *twins) string {
	w.restartOurs()
	return "restart kube-nft"
}

// mutate changes one thing about a Service, perhaps to what it was.
func (g *generator) mutate(p *plan) string {
	switch g.IntN(9) {
	case 0, 1:
		p.typ = oneOf(g, corev1.ServiceTypeClusterIP, typeNodePort, typeLoadBalancer, typeLoadBalancer, typeExternalName)
		if p.headless {
			p.typ = corev1.ServiceTypeClusterIP
		}
		return fmt.Sprintf("type %s", p.typ)
	case 2:
		p.ports = g.ports()
		return fmt.Sprintf("ports %v", p.ports)
	case 3:
		p.etp = g.chance(2)
		return fmt.Sprintf("external policy Local: %v", p.etp)
	case 4:
		p.itp = g.chance(2)
		return fmt.Sprintf("internal policy Local: %v", p.itp)
	case 5:
		p.external = oneOf(g, nil, []string{"own"})
		return fmt.Sprintf("external IPs: %v", p.external)
	case 6:
		p.ingress = oneOf(g, nil, own, own, []ingress{{ip: "own", mode: corev1.LoadBalancerIPModeProxy}})
		return fmt.Sprintf("ingress: %v", p.ingress)
	case 7:
		p.ranges = oneOf(g, nil, nil, []string{"198.51.100.0/24"}, []string{"10.244.0.0/16", "2001:db8:1::/64"}, []string{"0.0.0.0/0"})
		return fmt.Sprintf("ranges: %v", p.ranges)
	default:
		p.affinity = oneOf(g, 0, 0, 0, int32(600))
		p.labels = oneOf(g, nil, nil, nil, map[string]string{proxyNameLabel: "another"})
		return fmt.Sprintf("affinity: %d, labels: %v", p.affinity, p.labels)
	}
}

// ports returns one to three ports that differ in name, and in number or protocol.
func (g *generator) ports() (all []port) {
	names := []string{"x", "y", "z"}
	for _, name := range names[:1+g.IntN(3)] {
		p := port{name, oneOf(g, tcp, tcp, udp), oneOf(g, int32(80), 81, 53), oneOf(g, int32(8080), 9090), 0}
		taken := slices.ContainsFunc(all, func(o port) bool { return o.protocol == p.protocol && o.number == p.number })
		if !taken {
			all = append(all, p)
		}
	}
	if len(all) == 1 && g.chance(3) {
		all[0].name = ""
	}
	return all
}

// mutateEndpoints changes one thing about a Service's slices.
func (g *generator) mutateEndpoints(p *plan) string {
	if len(p.slices) == 0 || g.chance(8) {
		p.slices = append(p.slices, nil)
		return "one more slice"
	}
	i := g.IntN(len(p.slices))
	s := &p.slices[i]
	switch choice := g.IntN(10); {
	case choice == 0 && len(p.slices) > 1:
		p.slices = slices.Delete(p.slices, i, i+1)
		return "one slice less"
	case choice == 1:
		*s = nil
		return "no endpoints"
	case choice < 5 || len(*s) == 0:
		e := g.endpoint()
		if p.has(e.pod) {
			// Which of two entries counts may depend on the order of a Go map.
			return "nothing"
		}
		*s = append(*s, e)
		return fmt.Sprintf("add %v", e)
	case choice < 8:
		e := &(*s)[g.IntN(len(*s))]
		was := e.pod
		*e = g.endpoint()
		e.pod = was
		return fmt.Sprintf("now %v", *e)
	default:
		j := g.IntN(len(*s))
		*s = slices.Delete(*s, j, j+1)
		return "one endpoint less"
	}
}

func (g *generator) endpoint() endpoint {
	return endpoint{
		pod:      oneOf(g, "a", "a", "b", "c", "d", "host-0", "host-1"),
		state:    oneOf(g, ready, ready, ready, unset, starting, terminating, terminating, gone, published),
		zones:    oneOf(g, nil, nil, []string{"zone-a"}, []string{"zone-b"}),
		nodes:    oneOf(g, nil, nil, nil, []string{nodeName}, []string{peerName}),
		homeless: g.chance(12),
	}
}

// chance is true once in n times.
func (g *generator) chance(n int) bool { return g.IntN(n) == 0 }

func oneOf[T any](g *generator, choices ...T) T { return choices[g.IntN(len(choices))] }
