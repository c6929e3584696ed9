// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestAffinity compares whom the clients of a Service with session affinity meet: the
// same endpoint whichever of the Service's frontends they ask, for as long as it is
// there, and all endpoints between them.
func TestAffinity(t *testing.T) {
	t.Parallel()
	w := newTwins(t, defaults)
	p := &plan{name: "affinity", index: 1, typ: typeLoadBalancer, affinity: 3600, external: []string{"own"}, ingress: own,
		slices: one(endpoint{pod: "a"}, endpoint{pod: "b"}, endpoint{pod: "c"})}
	w.write(p)
	// So many that none of three endpoints is left out, but for one time in millions:
	// twenty clients leave one out once in a thousand times, and they are drawn 16 times.
	const clients = 50
	var sources [2][]netip.Addr
	for i := range clients {
		for f, a := range addrs(fmt.Sprintf("198.51.100.%d", 20+i), fmt.Sprintf("2001:db8:1::%x", 32+i)) {
			sources[f] = append(sources[f], a)
		}
	}
	for _, s := range w.sites() {
		for f := range families {
			for _, a := range sources[f] {
				w.Must(s.clients["client"].Addr("eth0", netip.PrefixFrom(a, subnet(a).Bits())))
			}
		}
	}
	for _, step := range []struct {
		name   string
		slices [][]endpoint
	}{
		{"affinity", p.slices},
		{"affinity-less", one(endpoint{pod: "b"}, endpoint{pod: "c"})},
		{"affinity-none", one()},
		{"affinity-again", p.slices},
	} {
		p.slices = step.slices
		w.write(p)
		w.settle()
		w.Must(w.ours.forgetFlows(), w.theirs.forgetFlows())
		q := *p
		q.name = step.name
		w.report(w.each(2*len(families), func(i int) (probe, result, result) {
			network, f := []string{"tcp", "udp"}[i/2], i%2
			at := netip.AddrPortFrom(p.clusterIPs()[f], 80)
			to := target{kind: "every frontend", network: network, at: at, sticky: true}
			return probe{&q, fmt.Sprintf("%d clients", clients), to}, w.ours.meet(&q, network, f, sources[f]), w.theirs.meet(&q, network, f, sources[f])
		}))
		checkDifferences(t, []*plan{&q})
	}
}

// meet returns which servers the sources meet at a Service's frontends of a family and
// protocol, and how many of them met more than one.
func (s *site) meet(p *plan, network string, f int, sources []netip.Addr) result {
	all, fickle := result{}, 0
	for _, source := range sources {
		mine := result{}
		for _, to := range p.targets() {
			if to.network != network || !to.kind.isFrontend() || to.at.Addr().Is6() != (f == 1) {
				continue
			}
			for range 3 {
				a, err := s.clients["client"].Ask(context.Background(), network, to.at, netlab.From(source))
				if err != nil {
					mine[failure(err, network)]++
				} else {
					mine[a.Server]++
				}
			}
		}
		for outcome := range mine {
			all[outcome]++
		}
		if len(mine) > 1 {
			fickle++
		}
	}
	if fickle > 0 {
		all[severalEndpoints]++
	}
	return all
}
