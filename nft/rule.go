// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/google/nftables/expr"
)

// Chains that are not named after a number of endpoints.
const (
	chainMarkMasq  = "KUBE-MARK-MASQ"
	chainServices  = "KUBE-SERVICES"
	chainNodePorts = "KUBE-NODEPORTS"
	chainLocal     = "KUBE-XLB"
	chainLocalNode = "KUBE-XLB-NODEPORTS"
	chainUnserved  = "KUBE-UNSERVED"
)

// The hooks of our base chains. Destinations are translated at the usual
// priority for that, and what no Service took is refused where hosts filter.
var (
	natPrerouting  = Hook{"nat", "prerouting", 0, -100, "dstnat"}
	natOutput      = Hook{"nat", "output", 3, -100, "-100"}
	natPostrouting = Hook{"nat", "postrouting", 4, 100, "srcnat"}
	filterInput    = Hook{"filter", "input", 1, 0, "filter"}
	filterForward  = Hook{"filter", "forward", 2, 0, "filter"}
	filterOutput   = Hook{"filter", "output", 3, 0, "filter"}
)

// chains returns the constant chains, each after those that it leads to.
func (s *Schema) chains() []RuleChain {
	f, mark := s.Family, uint32(1)<<s.Options.MasqueradeBit
	return []RuleChain{
		{Name: chainMarkMasq, Rules: []Rule{
			// meta mark set meta mark | 0x4000
			rule(setMark(mark)),
		}},
		s.Dynamic(Chain{Service, 1}),
		{Name: chainPrefix[Reject], Rules: []Rule{
			// reject
			rule(reject(f)),
		}},
		{Name: chainNodePorts, Rules: []Rule{
			// meta l4proto . th dport vmap @KUBE-NODEPORTS
			rule(vmap(f, NodePorts)),
		}},
		{Name: chainServices, Rules: []Rule{
			// ip daddr . meta l4proto . th dport vmap @KUBE-SERVICES
			rule(vmap(f, Services)),
			// ip daddr @KUBE-NODE-IP jump KUBE-NODEPORTS
			s.toNode(jump(chainNodePorts)),
		}},
		{Name: chainLocal, Rules: []Rule{
			// ip daddr . meta l4proto . th dport vmap @KUBE-XLB
			rule(vmap(f, LocalServices)),
		}},
		{Name: chainLocalNode, Rules: []Rule{
			// ip daddr @KUBE-NODE-IP meta l4proto . th dport vmap @KUBE-XLB-NODEPORTS
			s.toNode(vmap(f, LocalNodePorts)),
		}},
		{Name: "PREROUTING", Base: &natPrerouting, Rules: s.prerouting()},
		{Name: "OUTPUT", Base: &natOutput, Rules: []Rule{rule(jump(chainServices))}},
		{Name: "KUBE-POSTROUTING", Base: &natPostrouting, Rules: []Rule{
			// A pod that reaches itself through a Service must see another address
			// than its own: ct status dnat ip saddr . ip daddr @KUBE-LOOP-BACK masquerade fully-random
			rule(translated(), inSet(f, LoopBack), masquerade()),
			// meta mark & 0x4000 == 0 return
			rule(unmarked(mark), leave()),
			// The bit goes, so that the packet is not masqueraded again when it
			// comes by once more inside a tunnel: meta mark set meta mark ^ 0x4000
			rule(flipMark(mark)),
			// masquerade fully-random
			rule(masquerade()),
		}},
		s.unserved("INPUT", &filterInput, s.toNode(vmap(f, NoEndpointsNodePorts))),
		s.unserved("FORWARD", &filterForward, rule(inSet(f, ClusterIPs), reject(f))),
		s.unserved("OUTPUT", &filterOutput, rule(inSet(f, ClusterIPs), reject(f))),
	}
}

// prerouting returns the rules for packets from outside and from pods. Node ports
// come last, under either policy: an external IP may be an address of the node.
func (s *Schema) prerouting() []Rule {
	if !s.Options.LocalPolicy {
		return []Rule{rule(jump(chainServices))}
	}
	return []Rule{
		// ip saddr != 10.128.0.0/16 jump KUBE-XLB
		s.foreign(jump(chainLocal)),
		// ip daddr . meta l4proto . th dport vmap @KUBE-SERVICES
		rule(vmap(s.Family, Services)),
		// ip saddr != 10.128.0.0/16 jump KUBE-XLB-NODEPORTS
		s.foreign(jump(chainLocalNode)),
		// ip daddr @KUBE-NODE-IP jump KUBE-NODEPORTS
		s.toNode(jump(chainNodePorts)),
	}
}

// unserved returns the base chain that refuses what no Service took, at one hook.
// Established connections leave it after one test, translated ones after two.
// last is where the hooks differ, as in kube-proxy: node ports without endpoints
// are refused on input alone, unused ports of a ClusterIP everywhere else, since
// a ClusterIP may also be a local address (node-local DNS caches bind it).
func (s *Schema) unserved(hook string, base *Hook, last Rule) RuleChain {
	return RuleChain{Name: chainUnserved + "-" + hook, Base: base, Rules: []Rule{
		// ct state != new accept
		rule(notNew(), accept()),
		// ct status dnat accept
		rule(translated(), accept()),
		// ip daddr . meta l4proto . th dport vmap @KUBE-NO-ENDPOINTS
		rule(vmap(s.Family, NoEndpoints)),
		last,
	}}
}

// toNode makes a rule for packets to the addresses that node ports are served on.
func (s *Schema) toNode(then clause) Rule {
	if !s.Options.AllNodePorts {
		return rule(inSet(s.Family, NodeIPs), then)
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if s.Family == IPv6 {
		loopback = netip.MustParsePrefix("::1/128")
	}
	// fib daddr type local ip daddr != 127.0.0.0/8 …
	return rule(localDestination(), destination(s.Family, expr.CmpOpNeq, loopback), then)
}

// redraws is how often a chain with more slots than endpoints draws. All draws
// miss in one case in 1,300 with 5 endpoints, in 10,000 with 9, in 80,000 with 65:
// so much more than its share slot 0 gets.
const redraws = 4

// balance returns the rules of a chain that spreads connections over n slots.
// Slot 0 always exists: it takes a packet that was told n just before a Service
// shrank and drew a slot that is gone.
func (s *Schema) balance(c Chain) []Rule {
	set, rules := s.way(c.Kind)
	draws := 1
	if c.N > exactModuli {
		draws = redraws
	}
	for range draws {
		// dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @KUBE-SEP
		rules = append(rules, rule(dnat(s.Family, set, c.N)))
	}
	switch {
	case c.N == 1:
	case set == Endpoints:
		// goto KUBE-SVC-1
		rules = append(rules, rule(goTo(Chain{Service, 1}.String())))
	default:
		// dnat ip to meta l4proto . th dport . numgen random mod 1 map @KUBE-SEP-NODEPORTS
		rules = append(rules, rule(dnat(s.Family, set, 1)))
	}
	return rules
}

// way says where the endpoints of a kind of chain are, and which rules mark who is
// masqueraded on the way to them.
func (s *Schema) way(k ChainKind) (Set, []Rule) {
	everybody := []Rule{rule(jump(chainMarkMasq))}
	// ip saddr != 10.128.0.0/16 jump KUBE-MARK-MASQ
	foreign := []Rule{s.foreign(jump(chainMarkMasq))}
	switch k {
	case Service:
		switch {
		case s.Options.MasqueradeAll:
			return Endpoints, everybody
		case s.Options.LocalPods.IsValid():
			return Endpoints, foreign
		}
		return Endpoints, nil
	case Shortcut:
		return Endpoints, foreign
	case NodePort:
		return NodePortEndpoints, everybody
	case NodePortShortcut:
		return NodePortEndpoints, foreign
	case Local:
		return LocalEndpoints, nil
	case LocalNodePort:
		return LocalNodePortEndpoints, nil
	}
	return Endpoints, everybody
}

// foreign makes a rule for packets that do not come from local pods: for all
// packets if nothing is known of pods.
func (s *Schema) foreign(then clause) Rule {
	if !s.Options.LocalPods.IsValid() {
		return rule(then)
	}
	return rule(source(s.Family, expr.CmpOpNeq, s.Options.LocalPods), then)
}

func itoa(n uint32) string  { return strconv.FormatUint(uint64(n), 10) }
func hex32(v uint32) string { return fmt.Sprintf("0x%08x", v) }
