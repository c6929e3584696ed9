// SPDX-License-Identifier: Apache-2.0

// Package migrate says what becomes different when kube-nft takes kube-proxy's place on
// a node: from which mode, with which configuration, on which host. It is pure: facts
// in, sentences out. What is the same it does not say.
package migrate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/controller/config"
)

// Facts are what is known of the proxy that goes, and of its host.
type Facts struct {
	// Mode is nftables, iptables or ipvs; empty is unknown.
	Mode string
	// Config has its defaults; nil is unknown.
	Config *config.Configuration
	// Schedulers are those of the virtual services of IPVS.
	Schedulers []string
	// Accepts: the policy of the chain FORWARD is DROP, and kube-proxy accepts packets to
	// Services there.
	Accepts bool
	// Connections go through IPVS now.
	Connections int
	// RouteLocalnet: the kernel routes packets to 127.0.0.0/8, as kube-proxy in iptables
	// mode has it.
	RouteLocalnet bool
	// StrictARP: arp_ignore and arp_announce are as kube-proxy with strictARP sets them.
	StrictARP bool
}

// Change is something that becomes different.
type Change struct {
	// What it is, for whom.
	What string `json:"what"`
	// Do is what to do about it; "nothing" is an answer.
	Do string `json:"do"`
	// Breaks: who counts on how it was is without it.
	Breaks bool `json:"breaks,omitempty"`
}

// Changes lists all that becomes different, what may break first.
func Changes(f Facts) []Change {
	var all []Change
	switch f.Mode {
	case "iptables":
		all = append(f.iptables(), f.filter()...)
	case "ipvs":
		all = append(f.ipvs(), f.filter()...)
	case "nftables":
		all = f.nftables()
	}
	all = append(all, f.settings()...)
	all = append(all, Change{
		What: "Clients with session affinity may meet another pod once: whom they were with is not handed over.",
		Do:   "nothing; open connections stay where they are",
	}, Change{
		What: "Metrics on port 10249 keep kube-proxy's names, but those about rules and restores of iptables and about chains of nftables are not there; new ones begin with kube_nft_.",
		Do:   "see whether dashboards and alerts use what is left out (docs/metrics.md, Left out); deploy/monitoring has some for kube-nft",
	})
	slices.SortStableFunc(all, func(a, b Change) int { return rank(a) - rank(b) })
	return all
}

func rank(c Change) int {
	if c.Breaks {
		return 0
	}
	return 1
}

// filter is what the rules of iptables do in the table filter, in both modes that have
// them (docs/configuration.md, Whose place is taken).
func (f Facts) filter() []Change {
	all := []Change{{
		What: "Packets that conntrack finds invalid are not dropped on their way to pods.",
		Do:   "nothing, unless pods see resets of connections that are asymmetric: conntrack.tcpBeLiberal: true",
	}}
	if f.Accepts {
		all = append(all, Change{
			What: "The policy of the chain FORWARD is DROP, and kube-proxy's chain KUBE-FORWARD has accepted packets to Services there. kube-nft touches no table but its own.",
			Do:   "a rule of your own, before: iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT (ip6tables alike), kept where the host keeps its rules; or none, if the network plugin accepts all traffic of pods",

			Breaks: true,
		})
	}
	return all
}

func (f Facts) iptables() (all []Change) {
	if f.Config == nil || config.SettingsOf(f.Config).LocalhostNodePorts {
		all = append(all, Change{
			What: "Node ports on 127.0.0.1 go through a relay in the process of kube-nft, over UDP and on ::1 too; such connections end when it stops.",
			Do:   "nothing; or iptables.localhostNodePorts: false, to have none",
		})
	}
	if f.RouteLocalnet {
		all = append(all, Change{
			What: "The sysctl net.ipv4.conf.all.route_localnet is 1, as kube-proxy sets it for node ports on 127.0.0.1. kube-nft never needs it.",
			Do:   "if nobody else does, set it to 0: with it, neighbours can reach what listens on 127.0.0.1 (CVE-2020-8558), but for kubelet's chain KUBE-FIREWALL",
		})
	}
	return append(all, Change{
		What: "Ports of a ClusterIP that no Service has are refused at once; packets to them have gone to the default route.",
		Do:   "nothing",
	})
}

// random is what kube-nft does with each new connection.
const random = "here each new connection goes to an endpoint at random, all alike"

// schedulers are those that kube-proxy's users choose, and what to do without.
var schedulers = map[string]Change{
	"rr":  {What: "in turn (rr)", Do: "nothing: over many connections it comes to the same"},
	"wrr": {What: "in turn, by weight (wrr)", Do: "nothing: kube-proxy gives all endpoints the same weight"},
	"lc":  {What: "to the endpoint with the fewest connections (lc)", Do: "for connections that live long, let clients renew them, or balance in front of the pods", Breaks: true},
	"wlc": {What: "to the endpoint with the fewest connections (wlc)", Do: "for connections that live long, let clients renew them, or balance in front of the pods", Breaks: true},
	"sh":  {What: "by the client's address (sh)", Do: "sessionAffinity: ClientIP in those Services whose clients are to stay with a pod", Breaks: true},
	"dh":  {What: "by the Service's address (dh)", Do: "nothing, unless a Service counted on one single endpoint", Breaks: true},
	"mh":  {What: "by a hash of the client's address (mh)", Do: "sessionAffinity: ClientIP in those Services whose clients are to stay with a pod", Breaks: true},
	"sed": {What: "to the endpoint with the shortest expected delay (sed)", Do: "for connections that live long, let clients renew them, or balance in front of the pods", Breaks: true},
	"nq":  {What: "to an idle endpoint first (nq)", Do: "for connections that live long, let clients renew them, or balance in front of the pods", Breaks: true},
}

func (f Facts) ipvs() (all []Change) {
	names := slices.Clone(f.Schedulers)
	if f.Config != nil && f.Config.IPVS.Scheduler != "" {
		names = append(names, f.Config.IPVS.Scheduler)
	}
	if len(names) == 0 {
		names = []string{"rr"}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		c, ok := schedulers[name]
		if !ok {
			c = Change{What: "by the scheduler " + name, Do: "nothing that kube-nft could do", Breaks: true}
		}
		c.What = "IPVS has sent connections " + c.What + "; " + random + "."
		all = append(all, c)
	}
	all = append(all, Change{
		What: "Addresses of Services are bound to no interface: a ClusterIP does not answer ping, and a process of the node that listens on all addresses is not to be met there.",
		Do:   "checks that ping a ClusterIP: ask its port",

		Breaks: true,
	})
	if f.Connections > 0 {
		all = append(all, Change{
			What: fmt.Sprintf("%d connections go through IPVS, which alone can carry them on.", f.Connections),
			Do:   "take-over leaves IPVS what they need until they have ended; see --drain",
		})
	}
	return append(all, f.ipvsSettings()...)
}

func (f Facts) ipvsSettings() (all []Change) {
	if f.StrictARP || (f.Config != nil && f.Config.IPVS.StrictARP) {
		all = append(all, Change{
			What: "strictARP has no meaning: no address of a Service is bound, so the kernel answers ARP for none. arp_ignore and arp_announce stay as they were set until the node starts anew.",
			Do:   "nothing; if somebody else counts on them, as keepalived may, set them in sysctl.d",
		})
	}
	if f.Config == nil {
		return all
	}
	c := f.Config.IPVS
	if len(c.ExcludeCIDRs) > 0 {
		all = append(all, Change{
			What: "excludeCIDRs " + strings.Join(c.ExcludeCIDRs, ", ") + " has no meaning: what is not ours is never touched, whatever its address.",
			Do:   "nothing",
		})
	}
	for _, t := range []struct {
		name, field, is string
		of              time.Duration
	}{
		{"tcpTimeout", "conntrack.tcpEstablishedTimeout", f.Config.Conntrack.TCPEstablishedTimeout.Duration.String(), c.TCPTimeout.Duration},
		{"tcpFinTimeout", "the sysctl net.netfilter.nf_conntrack_tcp_timeout_fin_wait", "the kernel's", c.TCPFinTimeout.Duration},
		{"udpTimeout", "conntrack.udpStreamTimeout", f.Config.Conntrack.UDPStreamTimeout.Duration.String(), c.UDPTimeout.Duration},
	} {
		if t.of != 0 {
			all = append(all, Change{
				What: fmt.Sprintf("ipvs.%s (%v) has no effect: conntrack's timeout counts, which is %s (0 is the kernel's).", t.name, t.of, t.is),
				Do:   fmt.Sprintf("if idle connections are to be forgotten as before: %s %v", t.field, t.of),

				Breaks: true,
			})
		}
	}
	return all
}

// nftables is what tests/conformance has found (docs/conformance.md, What differs).
func (f Facts) nftables() []Change {
	return []Change{{
		What: "UDP flows to a node port without endpoints are forgotten, so that clients are told; a pod reaches itself through any Service that it is an endpoint of.",
		Do:   "nothing",
	}}
}

// settings are fields that somebody has set and that have no effect here.
func (f Facts) settings() (all []Change) {
	if f.Config == nil {
		return nil
	}
	for _, n := range config.Notes(f.Config) {
		if strings.HasPrefix(n.Field, "ipvs.") && f.Mode == "ipvs" && !strings.HasSuffix(n.Field, "minSyncPeriod") {
			continue // said above
		}
		all = append(all, Change{
			What: fmt.Sprintf("%s (%s) has no effect: %s.", n.Field, n.Value, n.Why), Do: "nothing; docs/configuration.md has all fields", Breaks: n.Matters,
		})
	}
	return all
}
