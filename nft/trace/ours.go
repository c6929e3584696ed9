// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// frontend is the element that took the packet.
type frontend struct {
	element nft.Element
	found   bool
	family  nft.Family
}

// Names of our base chains (nft/rule.go).
const (
	chainPrerouting  = "PREROUTING"
	chainOutput      = "OUTPUT"
	chainPostrouting = "KUBE-POSTROUTING"
	prefixFirewall   = "KUBE-FIREWALL-"
	prefixUnserved   = "KUBE-UNSERVED-"
	prefixLearn      = "KUBE-LEARN"
	chainMarkMasq    = "KUBE-MARK-MASQ"
	chainMasq        = "KUBE-MASQ"
)

// ours tells what a base chain of our table did.
func (t *teller) ours(v *visit) {
	switch {
	case v.chain == chainPrerouting || v.chain == chainOutput:
		t.served(v)
	case v.chain == chainPostrouting:
		t.source(v)
	case strings.HasPrefix(v.chain, prefixFirewall):
		t.firewall(v)
	case strings.HasPrefix(v.chain, prefixUnserved):
		t.unserved(v)
	case strings.HasPrefix(v.chain, prefixLearn):
		t.learned(v)
	default:
		t.foreign(v) // a chain that somebody added
	}
}

// lookupSets says in which map the rules of a chain look a frontend up.
var lookupSets = map[string]nft.Set{
	chainPrerouting:      nft.Services,
	"KUBE-SERVICES":      nft.Services,
	"KUBE-NODEPORTS":     nft.NodePorts,
	"KUBE-XLB":           nft.LocalServices,
	"KUBE-XLB-NODEPORTS": nft.LocalNodePorts,
}

// served tells of the chains that look a frontend up and choose an endpoint.
func (t *teller) served(v *visit) {
	for i, e := range v.events {
		chain, dynamic := nft.ParseChain(e.Verdict.Chain)
		set, looks := lookupSets[e.Chain]
		switch code := e.Verdict.code(); {
		case e.Type != Rule:
		case code == Jump && e.Verdict.Chain == chainMarkMasq:
			if !t.marked {
				t.step(v, "to be masqueraded ("+chainMarkMasq+"), asked for in "+e.Chain)
			}
			t.marked = true
		case looks && dynamic && (code == Goto || code == Jump):
			t.found(v, set, e, chain)
		case looks && code == Drop:
			t.name(v.table.Family, set)
			t.noneHere(v, set)
		case code == Accept:
			t.chosen(v, e)
		case i == len(v.events)-1:
			t.step(v, e.Verdict.String())
		}
	}
	if len(v.events) == 1 && v.last().Type == Policy && t.header != nil {
		h := t.header
		t.step(v, fmt.Sprintf("no frontend of a Service: %s %s", h.Proto, h.Dst))
	}
}

// found names the frontend.
func (t *teller) found(v *visit, set nft.Set, e Event, chain nft.Chain) {
	if t.frontend.found && t.frontend.element.Set == set {
		// New clients of a Service with session affinity come back from its chain.
		t.step(v, "no endpoint remembered for this client: "+e.Verdict.String())
		return
	}
	t.name(v.table.Family, set)
	words := "frontend"
	if t.frontend.found {
		words = "frontend of " + t.frontend.element.Value.Comment
	}
	t.step(v, fmt.Sprintf("%s, %s in %s: %s", words, t.keyText(set), set, e.Verdict))
}

// name looks the frontend up that took the packet.
func (t *teller) name(f nft.Family, set nft.Set) {
	if t.header == nil {
		return
	}
	e, ok := t.lookup.Frontend(f, set, t.key(set))
	t.frontend = frontend{e, ok, f}
	if !ok {
		return
	}
	s := &Service{Frontend: t.keyText(set), Set: set.String()}
	s.Namespace, s.Name, _ = strings.Cut(e.Value.Comment, "/")
	s.Name, s.Port, _ = strings.Cut(s.Name, ":")
	t.packet.Service = s
}

// key is the packet's key in a map of frontends; those of node ports have no address.
func (t *teller) key(set nft.Set) nft.Key {
	k := nft.Key{Addr: t.header.Dst.Addr(), Proto: t.header.Proto, Port: t.header.Dst.Port()}
	switch set {
	case nft.NodePorts, nft.LocalNodePorts, nft.NoEndpointsNodePorts:
		k.Addr = netip.Addr{}
	}
	return k
}

func (t *teller) keyText(set nft.Set) string {
	k := t.key(set)
	words := fmt.Sprintf("%s . %d", k.Proto, k.Port)
	if k.Addr.IsValid() {
		words = k.Addr.String() + " . " + words
	}
	return words
}

// noneHere tells of a policy Local that has no endpoint on this node.
func (t *teller) noneHere(v *visit, set nft.Set) {
	t.packet.Reason = fmt.Sprintf("dropped: %s has a traffic policy Local, and no endpoint on this node (%s in %s)",
		t.service(), t.keyText(set), set)
	t.step(v, t.packet.Reason)
}

func (t *teller) service() string {
	if t.frontend.found {
		return t.frontend.element.Value.Comment
	}
	return "the Service"
}

// chosen tells that an endpoint was chosen; which one is seen in the next chain.
func (t *teller) chosen(v *visit, e Event) {
	chain, _ := nft.ParseChain(e.Chain)
	t.affinity = chain.Kind > nft.Reject
	if t.affinity {
		t.step(v, "this client is remembered ("+chain.String()+")")
	} else {
		t.step(v, "balanced by "+e.Chain)
	}
	t.pendingTo = len(t.packet.Steps)
}

// endpoint says which endpoint the packet was sent to.
func (t *teller) endpoint(to netip.AddrPort) string {
	ep := &Endpoint{Address: to, Affinity: t.affinity}
	t.packet.Endpoint = ep
	if !t.frontend.found {
		return fmt.Sprintf(": to %s", to)
	}
	slots := t.lookup.Slots(t.frontend.family, t.frontend.element)
	for _, s := range slots {
		if s.Value.To == to {
			ep.Slot, ep.Slots = s.Key.Slot, len(slots)
			return fmt.Sprintf(": to %s, slot %d of %d in %s", to, ep.Slot, len(slots), s.Set)
		}
	}
	return fmt.Sprintf(": to %s, which has left the Service since", to)
}

// source tells of the chain that replaces sources.
func (t *teller) source(v *visit) {
	end := v.last()
	if end.Type != Rule || end.Verdict.code() != Accept {
		return
	}
	text := "a pod that reaches itself: masqueraded"
	if end.Chain == chainMasq {
		text = "masqueraded (" + chainMasq + ")"
	}
	t.step(v, text)
	t.pendingFrom = len(t.packet.Steps)
}

// firewall tells of the chains that know source ranges.
func (t *teller) firewall(v *visit) {
	if end := v.last(); end.Type == Rule && end.Verdict.code() == Drop && t.header != nil {
		t.name(v.table.Family, nft.Services)
		if !t.frontend.found {
			t.name(v.table.Family, nft.NoEndpoints)
		}
		t.packet.Reason = fmt.Sprintf("dropped: %s is not in loadBalancerSourceRanges of %s (%s)",
			t.header.Src.Addr(), t.service(), nft.SourceRanges)
		t.step(v, t.packet.Reason)
	}
}

// unserved tells of the chains that refuse what no Service took.
func (t *teller) unserved(v *visit) {
	end := v.last()
	if end.Type != Rule || end.Verdict.code() != Drop || t.header == nil {
		t.step(v, "accept")
		return
	}
	dst := t.header.Dst
	set := nft.NoEndpoints
	if t.name(v.table.Family, set); !t.frontend.found {
		set = nft.NoEndpointsNodePorts
		t.name(v.table.Family, set)
	}
	switch {
	case end.Chain != v.chain: // KUBE-REJECT, where elements lead
		t.packet.Reason = fmt.Sprintf("rejected: %s has no endpoints (%s in %s)", t.service(), t.keyText(set), set)
	case t.frontend.found && t.frontend.element.Value.Verdict.Kind == nft.Drop:
		t.noneHere(v, set)
		return
	case t.rejects(v):
		t.packet.Reason = fmt.Sprintf("rejected: %s is a ClusterIP, and its Service has no port %s %d (%s)",
			dst.Addr(), t.header.Proto, dst.Port(), nft.ClusterIPs)
	default:
		t.packet.Reason = fmt.Sprintf("dropped: %s is in a ServiceCIDR, and no Service has it (%s)", dst.Addr(), nft.ServiceCIDRs)
	}
	t.step(v, t.packet.Reason)
}

// learned tells that a client was noted.
func (t *teller) learned(v *visit) {
	for _, e := range v.events {
		if c, ok := nft.ParseChain(e.Chain); ok && c.Kind == nft.Learn && e.Type == Rule {
			t.step(v, "this client is remembered from now on ("+c.String()+")")
			return
		}
	}
}
