// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"strings"

	"github.com/kube-nft/kube-nft/nft"
)

// says puts a rule in words: what it asked, and what follows.
func (w *walk) says(c nft.RuleChain, r nft.Rule, m *machine, o outcome) string {
	switch o.kind {
	case noMatch:
		return w.saysNo(r, m)
	case jumps, goesTo:
		return w.saysWhere(c, r, m, o)
	case drops:
		w.decided = w.saysDrop(m)
		return w.decided
	case rejects:
		w.decided = w.saysReject(m)
		return w.decided
	case translates:
		return w.saysTranslate(m)
	case masquerades:
		return w.saysMasquerade(r)
	case accepts:
		return w.saysAccept(r)
	}
	if c.Name == "KUBE-MASQ" {
		return "the mark bit is cleared again"
	}
	return "the mark bit is set"
}

// saysNo is for a rule that did not match.
func (w *walk) saysNo(r nft.Rule, m *machine) string {
	switch {
	case m.bySource && !m.asked:
		return "the packet comes from a local pod, so this is not for it"
	case strings.Contains(r.Text, " saddr map @"):
		if !m.s.known {
			return "clients that are remembered go to their endpoint, this one is taken for new"
		}
		return "the client is not remembered"
	case strings.Contains(r.Text, "@"+nft.SourceRanges.String()) && !m.s.known:
		return "some sources are let in, and this one is taken for one of them"
	case strings.Contains(r.Text, "@"+nft.SourceRanges.String()):
		return "the source is let in"
	case strings.Contains(r.Text, "@"+nft.Firewall.String()):
		return "this frontend has source ranges"
	}
	_, set, _ := strings.Cut(r.Text, "@")
	set, _, _ = strings.Cut(set, " ")
	return "not in " + set
}

// saysWhere is for a rule that leads to a chain.
func (w *walk) saysWhere(c nft.RuleChain, r nft.Rule, m *machine, o outcome) string {
	switch {
	case o.name == "KUBE-MARK-MASQ":
		w.markedBy = w.markReason(c, m)
		return "to be masqueraded: " + w.markedBy
	case o.name == "KUBE-MASQ":
		return "the packet has the mark"
	case o.name == "KUBE-XLB":
		return "not from a local pod: frontends under the external traffic policy Local are asked first"
	case o.chain.Kind == nft.Reject:
		return "a frontend without endpoints"
	case o.chain.Port != (nft.Port{}):
		return "a frontend with session affinity: is the client remembered?"
	case o.chain.Kind != 0:
		return w.saysBalance(o.chain)
	case m.asked:
		return "an address that node ports are served on"
	}
	if strings.HasPrefix(r.Text, "fib ") {
		return "an address of this host, so node ports are served on it"
	}
	return "on to " + o.name
}

// markReason says why a packet is marked.
func (w *walk) markReason(c nft.RuleChain, m *machine) string {
	chain, _ := nft.ParseChain(c.Name)
	pods := w.schema.Options.LocalPods
	switch {
	case m.bySource && pods.Interface != "":
		from := "it comes in by " + m.s.in
		if m.s.in == "" {
			from = "it does not come in by an interface of pods"
		}
		return from + ", and local pods are known by " + pods.Interface
	case m.bySource:
		return "it does not come from local pods, " + pods.Prefix.String()
	case chain.Kind == nft.Service || chain.Kind == nft.AffinityService || chain.Kind == nft.AffinityServiceLocal:
		return "everybody is on the way to a cluster IP (--masquerade-all)"
	case chain.Kind == nft.Shortcut || chain.Kind == nft.NodePortShortcut || chain.Kind == nft.AffinityShortcut:
		return "nothing is known of pods, and the way is not the clients'"
	}
	return "everybody is, on the way to external addresses and node ports under the policy Cluster"
}

func (w *walk) saysBalance(c nft.Chain) string {
	to := map[nft.ChainKind]string{
		nft.Service:          "a cluster IP",
		nft.External:         "an external or load balancer IP",
		nft.NodePort:         "a node port",
		nft.Shortcut:         "the way of local pods and this node to an external or load balancer IP under the policy Local, to all endpoints",
		nft.NodePortShortcut: "the way of local pods and this node to a node port under the policy Local, to all endpoints",
		nft.Local:            "an external or load balancer IP under the policy Local: endpoints on this node alone",
		nft.LocalNodePort:    "a node port under the policy Local: endpoints on this node alone",
	}[c.Kind]
	return fmt.Sprintf("%s; draws from %d", to, c.N)
}

func (w *walk) saysDrop(m *machine) string {
	switch {
	case m.element != nil && m.element.Set == nft.ServiceCIDRs:
		return "dropped: no Service has this address, which is one of those that Services get theirs from"
	case m.element != nil:
		return "dropped: the Service has endpoints, but none on this node, and its traffic policy is Local"
	}
	return "dropped: the source is in none of the Service's loadBalancerSourceRanges"
}

func (w *walk) saysReject(m *machine) string {
	if m.element != nil && m.element.Set == nft.ClusterIPs {
		return "rejected: a cluster IP, but no Service has this port there"
	}
	return "rejected: no endpoint takes connections"
}

func (w *walk) saysTranslate(m *machine) string {
	if m.modulus == 0 {
		r := w.x.Remembered
		return fmt.Sprintf("the client is remembered: sent to %s, for %s more", r.Endpoint, r.Left.Round(1e9))
	}
	filled := 0
	for _, s := range m.slots {
		if s.IsValid() {
			filled++
		}
	}
	switch {
	case filled == 0:
		return "its slot is empty"
	case filled < len(m.slots):
		return fmt.Sprintf("translated to one of %d endpoints; of %d slots the others are empty, and it draws again", filled, len(m.slots))
	case filled == 1:
		return "translated to the endpoint"
	}
	return fmt.Sprintf("translated to one of %d endpoints at random", filled)
}

func (w *walk) saysMasquerade(r nft.Rule) string {
	if strings.Contains(r.Text, "@"+nft.LoopBack.String()) {
		w.decided = "masqueraded: the client is the endpoint itself, and would answer itself (hairpin)"
	} else {
		w.decided = "masqueraded: " + w.markedBy
	}
	return w.decided
}

func (w *walk) saysAccept(r nft.Rule) string {
	switch {
	case strings.Contains(r.Text, "ct status dnat"):
		return "translated: passes"
	case strings.Contains(r.Text, nft.Firewall.String()):
		return "this frontend has no source ranges"
	}
	return "passes"
}
