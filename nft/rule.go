// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/google/nftables/expr"
)

// Chains that are not named after a number of endpoints.
const (
	chainMarkMasq  = "KUBE-MARK-MASQ"
	chainMasq      = "KUBE-MASQ"
	chainServices  = "KUBE-SERVICES"
	chainNodePorts = "KUBE-NODEPORTS"
	chainLocal     = "KUBE-XLB"
	chainLocalNode = "KUBE-XLB-NODEPORTS"
	chainUnserved  = "KUBE-UNSERVED"
	chainFirewall  = "KUBE-FIREWALL"
	chainLearn     = "KUBE-LEARN"
)

// The hooks of our base chains. Destinations are translated at the usual
// priority for that, and what no Service took is refused where hosts filter. Who
// may reach a load balancer is decided before, where addresses are those that
// the client used; which endpoint a client reached is noted before its own address
// is translated.
var (
	natPrerouting  = Hook{"nat", "prerouting", 0, -100, "dstnat"}
	natOutput      = Hook{"nat", "output", 3, -100, "-100"}
	natPostrouting = Hook{"nat", "postrouting", 4, 100, "srcnat"}
	filterInput    = Hook{"filter", "input", 1, 0, "filter"}
	filterForward  = Hook{"filter", "forward", 2, 0, "filter"}
	filterOutput   = Hook{"filter", "output", 3, 0, "filter"}

	firewallPrerouting = Hook{"filter", "prerouting", 0, -110, "dstnat - 10"}
	firewallOutput     = Hook{"filter", "output", 3, -110, "-110"}
	learnInput         = Hook{"filter", "input", 1, 99, "99"}
	learnPostrouting   = Hook{"filter", "postrouting", 4, 99, "srcnat - 1"}
)

// chains returns the constant chains, each after those that it leads to.
func (s *Schema) chains() []RuleChain {
	f, mark := s.Family, uint32(1)<<s.Options.MasqueradeBit
	all := []RuleChain{
		{Name: chainMarkMasq, Rules: []Rule{
			// meta mark set meta mark | 0x4000
			rule(setMark(mark)),
		}},
		s.Dynamic(Chain{Kind: Service, N: 1}),
		{Name: chainPrefix[Reject], Rules: []Rule{
			// reject
			rule(reject(f)),
		}},
		{Name: chainMasq, Rules: []Rule{
			// The bit goes, so that the packet is not masqueraded again when it
			// comes by once more inside a tunnel: meta mark set meta mark ^ 0x4000
			rule(flipMark(mark)),
			// masquerade fully-random
			rule(masquerade()),
		}},
		// ip daddr @KUBE-NODE-IP is asked before: meta l4proto . th dport vmap @KUBE-NODEPORTS
		{Name: chainNodePorts, Rules: s.served(NodePorts)},
		{Name: chainServices, Rules: s.services(chainNodePorts)},
	}
	if s.has(LocalPolicy) {
		all = append(all,
			// ip daddr . meta l4proto . th dport vmap @KUBE-XLB
			RuleChain{Name: chainLocal, Rules: s.served(LocalServices)},
			RuleChain{Name: chainLocalNode, Rules: s.localNodePorts()})
	}
	if s.has(SourceFilter) {
		all = append(all, s.firewall("PREROUTING", &firewallPrerouting), s.firewall("OUTPUT", &firewallOutput))
	}
	if s.has(ClientAffinity) {
		all = append(all, s.learnChains()...)
	}
	return append(all,
		RuleChain{Name: "PREROUTING", Base: &natPrerouting, Rules: s.prerouting()},
		RuleChain{Name: "OUTPUT", Base: &natOutput, Rules: []Rule{rule(jump(chainServices))}},
		RuleChain{Name: "KUBE-POSTROUTING", Base: &natPostrouting, Rules: s.postrouting(mark)},
		s.unserved("INPUT", &filterInput, s.toNode(vmap(f, NoEndpointsNodePorts))),
		s.unserved("FORWARD", &filterForward, s.unused()...),
		s.unserved("OUTPUT", &filterOutput, s.unused()...),
	)
}

// has reports whether the table has a feature.
func (s *Schema) has(f Features) bool { return s.Features&f != 0 }

// served returns the rules that look a frontend up, for packets that match first. A
// Service port with session affinity leads to a chain that returns with clients that are
// new to it: a second map then says how those are balanced.
func (s *Schema) served(set Set, first ...clause) []Rule {
	rules := []Rule{rule(append(slices.Clip(first), vmap(s.Family, set))...)}
	if fallback := set.FallbackOf(); s.hasSet(fallback) {
		// ip daddr . meta l4proto . th dport vmap @KUBE-AFFINITY-SERVICES
		rules = append(rules, rule(append(slices.Clip(first), vmap(s.Family, fallback))...))
	}
	return rules
}

// services returns the rules that look up what a packet asks for. Node ports come last:
// an external IP may be an address of the node.
func (s *Schema) services(nodePorts string) []Rule {
	// ip daddr . meta l4proto . th dport vmap @KUBE-SERVICES
	// ip daddr @KUBE-NODE-IP jump KUBE-NODEPORTS
	return append(s.served(Services), s.toNode(jump(nodePorts)))
}

// prerouting returns the rules for packets from outside and from pods. They are most:
// the rules of KUBE-SERVICES are repeated here rather than jumped to.
func (s *Schema) prerouting() []Rule {
	if !s.has(LocalPolicy) {
		return s.services(chainNodePorts)
	}
	// ip saddr != 10.128.0.0/16 jump KUBE-XLB
	return append([]Rule{s.foreign(jump(chainLocal))}, s.services(chainLocalNode)...)
}

// localNodePorts returns the rules for packets to the node's addresses while a policy is
// Local: like load balancer IPs, its node ports lead local pods to all endpoints.
func (s *Schema) localNodePorts() []Rule {
	return append(
		// ip saddr != 10.128.0.0/16 meta l4proto . th dport vmap @KUBE-XLB-NODEPORTS
		s.served(LocalNodePorts, s.foreigner()...),
		// goto KUBE-NODEPORTS
		rule(goTo(chainNodePorts)))
}

// postrouting returns the rules that replace the source of connections.
func (s *Schema) postrouting(mark uint32) []Rule {
	// meta mark & 0x4000 == 0x4000 goto KUBE-MASQ
	rules := []Rule{rule(marked(mark), goTo(chainMasq))}
	if s.has(Hairpins) {
		// A pod that reaches itself through a Service must see another address
		// than its own: ct status dnat ip saddr . ip daddr @KUBE-LOOP-BACK masquerade fully-random
		rules = append(rules, rule(translated(), inSet(s.Family, LoopBack), masquerade()))
	}
	return rules
}

// firewall returns the base chain that drops what loadBalancerSourceRanges keeps
// out, at one hook.
func (s *Schema) firewall(hook string, base *Hook) RuleChain {
	return RuleChain{Name: chainFirewall + "-" + hook, Base: base, Rules: []Rule{
		// ct state != new accept
		rule(notNew(), accept()),
		// ip daddr . meta l4proto . th dport != @KUBE-LOAD-BALANCER-FW accept
		rule(notInSet(s.Family, Firewall), accept()),
		// ip daddr . meta l4proto . th dport . ip saddr != @KUBE-LOAD-BALANCER-SOURCE-CIDR drop
		rule(notInSet(s.Family, SourceRanges), drop()),
	}}
}

// unused returns the rules for addresses of Services where no Service port is:
// refused where there is a Service, dropped where there is none.
func (s *Schema) unused() []Rule {
	// ip daddr @KUBE-CLUSTER-IP reject
	rules := []Rule{rule(inSet(s.Family, ClusterIPs), reject(s.Family))}
	if s.has(ServiceRanges) {
		// ip daddr @KUBE-SERVICE-CIDR drop
		rules = append(rules, rule(inSet(s.Family, ServiceCIDRs), drop()))
	}
	return rules
}

// unserved returns the base chain that refuses what no Service took, at one hook.
// Established connections leave it after one test, translated ones after two.
// last is where the hooks differ, as in kube-proxy: node ports without endpoints
// are refused on input alone, unused ports of a ClusterIP everywhere else, since
// a ClusterIP may also be a local address (node-local DNS caches bind it).
func (s *Schema) unserved(hook string, base *Hook, last ...Rule) RuleChain {
	return RuleChain{Name: chainUnserved + "-" + hook, Base: base, Rules: append([]Rule{
		// ct state != new accept
		rule(notNew(), accept()),
		// ct status dnat accept
		rule(translated(), accept()),
		// ip daddr . meta l4proto . th dport vmap @KUBE-NO-ENDPOINTS
		rule(vmap(s.Family, NoEndpoints)),
	}, last...)}
}

// toNode makes a rule for packets to the addresses that node ports are served on.
func (s *Schema) toNode(then clause) Rule { return rule(append(s.nodeAddress(), then)...) }

func (s *Schema) nodeAddress() []clause {
	if !s.Options.AllNodePorts {
		return []clause{inSet(s.Family, NodeIPs)}
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	if s.Family == IPv6 {
		loopback = netip.MustParsePrefix("::1/128")
	}
	// fib daddr type local ip daddr != 127.0.0.0/8 …
	return []clause{localDestination(), destination(s.Family, expr.CmpOpNeq, loopback)}
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
		rules = append(rules, rule(goTo(Chain{Kind: Service, N: 1}.String())))
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
		case s.Options.LocalPods.Known():
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
func (s *Schema) foreign(then clause) Rule { return rule(append(s.foreigner(), then)...) }

func (s *Schema) foreigner() []clause {
	switch pods := s.Options.LocalPods; {
	case pods.Prefix.IsValid():
		return []clause{source(s.Family, expr.CmpOpNeq, pods.Prefix)}
	case pods.Interface != "":
		return []clause{notFromInterface(pods.Interface)}
	}
	return nil
}

func itoa(n uint32) string  { return strconv.FormatUint(uint64(n), 10) }
func hex32(v uint32) string { return fmt.Sprintf("0x%08x", v) }
