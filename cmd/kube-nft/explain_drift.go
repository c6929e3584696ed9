// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
)

// headSets are where a frontend may have an element; their endpoints are apart.
var headSets = [...]nft.Set{
	nft.Services, nft.LocalServices, nft.NoEndpoints, nft.AffinityServices, nft.AffinityLocalServices, nft.LearnServices, nft.Firewall,
}

// nodePortSets are those for a node port.
var nodePortSets = [...]nft.Set{
	nft.NodePorts, nft.LocalNodePorts, nft.NoEndpointsNodePorts, nft.AffinityNodePorts, nft.AffinityLocalNodePorts, nft.LearnNodePorts,
}

// holding is what the kernel holds for a frontend.
type holding struct {
	heads []nft.Element
	// packets are those that the frontend has counted.
	packets uint64
	// sources are let in; nil is everybody.
	sources []netip.Prefix
	// leads are the endpoints by slot, by the set that holds them.
	leads map[nft.Set][]netip.AddrPort
}

// hold reads what the kernel holds for a frontend.
func (t *kernelTable) hold(frontend nft.Key) holding {
	h := holding{leads: make(map[nft.Set][]netip.AddrPort)}
	sets := headSets[:]
	if !frontend.Addr.IsValid() {
		sets = nodePortSets[:]
	}
	var keys []nft.Element
	for _, set := range sets {
		keys = append(keys, nft.Element{Set: set, Key: frontend})
	}
	t.note(t.conn.Find(t.ctx, t.family, keys, func(e nft.Element, packets uint64) {
		h.heads = append(h.heads, e)
		h.packets += packets
	}))
	for _, e := range h.heads {
		if e.Set == nft.Firewall {
			h.sources = t.Sources(frontend)
			continue
		}
		set, leads := h.endpointsOf(e)
		if leads && e.Value.Verdict.N > 0 {
			h.leads[set] = t.Slots(set, frontend, e.Value.Verdict.N)
		}
	}
	return h
}

// endpointsOf names the set in which an element's endpoints are; with session affinity
// it is the second element that says how many they are.
func (h *holding) endpointsOf(e nft.Element) (nft.Set, bool) {
	if set, ok := e.Set.EndpointsOf(); ok {
		return set, true
	}
	for _, first := range [...]nft.Set{nft.Services, nft.NodePorts, nft.LocalServices, nft.LocalNodePorts} {
		if first.FallbackOf() == e.Set {
			return first.EndpointsOf()
		}
	}
	return 0, false
}

// driftOf says in what the kernel differs from what a frontend should have.
func driftOf(t *kernelTable, s explain.Service, port explain.ServicePort, f explain.PortFrontend) (drift []string, err error) {
	key := nft.Key{Addr: f.Address, Port: f.Port}
	if key.Proto, err = parseProto(port.Protocol); err != nil {
		return nil, err
	}
	h := t.hold(key)
	var have []string
	for _, e := range h.heads {
		have = append(have, e.String())
	}
	for _, p := range h.sources {
		e := nft.Element{Set: nft.SourceRanges, Key: key}
		e.Key.Range = nft.RangeOf(p)
		have = append(have, e.String())
	}
	for _, e := range f.Wanted {
		if !slices.Contains(have, e) {
			drift = append(drift, "missing in the kernel: "+e)
		}
	}
	for _, e := range have {
		if !slices.Contains(f.Wanted, e) {
			drift = append(drift, "only in the kernel: "+e)
		}
	}
	for name, want := range f.Leads {
		set, _ := nft.ParseSet(name)
		drift = append(drift, different(name, f, filled(h.leads[set]), want)...)
	}
	slices.Sort(drift)
	return drift, nil
}

// filled are the slots with an endpoint.
func filled(slots []netip.AddrPort) []netip.AddrPort {
	return slices.DeleteFunc(slices.Clone(slots), func(a netip.AddrPort) bool { return !a.IsValid() })
}

func different(set string, f explain.PortFrontend, have, want []netip.AddrPort) (drift []string) {
	for _, e := range want {
		if !slices.Contains(have, e) {
			drift = append(drift, fmt.Sprintf("missing in the kernel: endpoint %s of %s in %s", e, frontendText(f), set))
		}
	}
	for _, e := range have {
		if !slices.Contains(want, e) {
			drift = append(drift, fmt.Sprintf("only in the kernel: endpoint %s of %s in %s", e, frontendText(f), set))
		}
	}
	return drift
}

// frontendText names a frontend as a client would.
func frontendText(f explain.PortFrontend) string {
	if !f.Address.IsValid() {
		return fmt.Sprintf("node port %d", f.Port)
	}
	return netip.AddrPortFrom(f.Address, f.Port).String()
}

// isOf reports whether an element's comment names a port of a Service.
func isOf(comment, service string) bool {
	rest, ok := strings.CutPrefix(comment, service)
	return ok && (rest == "" || rest[0] == ':')
}
