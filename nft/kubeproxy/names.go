// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"slices"
	"strings"
)

// proxyTable is the table of kube-proxy in nftables mode, in each family. Somebody
// else's table of that name has neither its comment nor its chain.
const (
	proxyTable   = "kube-proxy"
	tableComment = "rules for kube-proxy"
	tableChain   = "service-endpoints-check"
)

// device is the dummy to which the mode ipvs binds the addresses of Services. That of
// the DNS cache of a node is nodelocaldns, and not kube-proxy's.
const device = "kube-ipvs0"

// chains are those of the modes iptables and ipvs (pkg/proxy/iptables/cleanup.go,
// pkg/proxy/ipvs/proxier.go, iptablesCleanupChains).
var chains = map[string][]string{
	"nat": {
		"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", markMasq, canary,
		"KUBE-NODE-PORT", "KUBE-LOAD-BALANCER",
	},
	"filter": {
		"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", forward, "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL", canary,
		"KUBE-NODE-PORT", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER",
	},
	"mangle": {canary},
}

const (
	// canary is there so that kube-proxy notices when somebody flushes iptables.
	canary = "KUBE-PROXY-CANARY"
	// markMasq sets the mark of those to masquerade; network plugins may jump there.
	markMasq = "KUBE-MARK-MASQ"
	// forward accepts packets to Services where the policy of FORWARD would drop them.
	forward = "KUBE-FORWARD"
	// firewall is kubelet's, and kube-proxy makes it as well. In IPv6 kubelet has none:
	// an empty one there is what kube-proxy forgets.
	firewall = "KUBE-FIREWALL"
)

// prefixes are those of chains of one Service port or endpoint, in table nat
// (pkg/proxy/iptables/proxier.go, isServiceChainName); KUBE-XLB- is of versions before
// 1.24.
var prefixes = []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"}

// isChain says whether a chain of iptables is kube-proxy's by its name.
func isChain(table, name string) bool {
	if slices.Contains(chains[table], name) {
		return true
	}
	return table == "nat" && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// comments are those of the jumps from the chains of iptables to kube-proxy's
// (iptablesJumpChains of both modes). A jump without one of them is somebody else's.
var comments = []string{
	"kubernetes service portals",
	"kubernetes externally-visible service portals",
	"kubernetes health check service ports",
	"kubernetes forwarding rules",
	"kubernetes load balancer firewall",
	"kubernetes postrouting rules",
	"kubernetes health check rules",
	"kube-proxy firewall rules",
	"kubernetes ipvs access filter",
}

// accounts are those of nfacct that the mode iptables counts in (pkg/proxy/metrics);
// kube-proxy's cleanup forgets them.
var accounts = []string{"ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"}

// builtin are the chains of iptables that kube-proxy jumps from.
var builtin = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// sets are the ipsets of the mode ipvs (pkg/proxy/ipvs/ipset.go), with their types. In
// IPv6 their names begin with KUBE-6-; kube-proxy's cleanup forgets those.
var sets = map[string]string{
	"KUBE-LOOP-BACK":                 "hash:ip,port,ip",
	"KUBE-CLUSTER-IP":                "hash:ip,port",
	"KUBE-EXTERNAL-IP":               "hash:ip,port",
	"KUBE-EXTERNAL-IP-LOCAL":         "hash:ip,port",
	"KUBE-LOAD-BALANCER":             "hash:ip,port",
	"KUBE-LOAD-BALANCER-FW":          "hash:ip,port",
	"KUBE-LOAD-BALANCER-LOCAL":       "hash:ip,port",
	"KUBE-LOAD-BALANCER-SOURCE-IP":   "hash:ip,port,ip",
	"KUBE-LOAD-BALANCER-SOURCE-CIDR": "hash:ip,port,net",
	"KUBE-NODE-PORT-TCP":             "bitmap:port",
	"KUBE-NODE-PORT-LOCAL-TCP":       "bitmap:port",
	"KUBE-NODE-PORT-UDP":             "bitmap:port",
	"KUBE-NODE-PORT-LOCAL-UDP":       "bitmap:port",
	"KUBE-NODE-PORT-SCTP-HASH":       "hash:ip,port",
	"KUBE-NODE-PORT-LOCAL-SCTP-HASH": "hash:ip,port",
	"KUBE-HEALTH-CHECK-NODE-PORT":    "bitmap:port",
	"KUBE-IPVS-IPS":                  "hash:ip",
}

// longestSet is how many bytes of an ipset's name there are.
const longestSet = 31

// setOf returns the name of a set in IPv4, if one of this name and type is
// kube-proxy's.
func setOf(name, typ string) (ipv4 string, ok bool) {
	for ipv4, t := range sets {
		ipv6 := strings.Replace(ipv4, "KUBE-", "KUBE-6-", 1)
		if t == typ && (name == ipv4 || name == ipv6[:min(len(ipv6), longestSet)]) {
			return ipv4, true
		}
	}
	return "", false
}
