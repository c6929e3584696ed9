// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// field is what a field of the configuration means here.
type field struct {
	path string // as in the file
	does string // what it does; empty is nothing
	not  string // why it has no effect, or has none if counts says so
	// counts says whether it does what it does; nil is always.
	counts func(*Configuration) bool
	// matters: who has set it may feel that it has no effect.
	matters bool
}

func inMode(modes ...string) func(*Configuration) bool {
	return func(c *Configuration) bool { return slices.Contains(modes, string(Mode(c))) }
}

var (
	inIPTablesOrIPVS = inMode("iptables", "ipvs")
	inIPTables       = inMode("iptables")
	inIPVS           = inMode("ipvs")
	inNFTables       = inMode("nftables")
)

func detects(mode string) func(*Configuration) bool {
	return func(c *Configuration) bool { return string(c.DetectLocalMode) == mode }
}

// OtherMode is why fields of another mode have no effect.
const OtherMode = "the mode is another one"

// Reasons that several fields share.
const (
	atOnce     = "every change is programmed at once, and there is nothing that a pause would save"
	notIPVS    = "connections are tracked by conntrack, not by IPVS; the timeouts in `conntrack` are theirs"
	onWindows  = "it is about Windows"
	plainLogs  = "log lines are written as they come, one stream, one level for all"
	nothingHid = "no metric is hidden here"
)

// fields are all there are. A test holds them against the type.
var fields = []field{
	{path: "apiVersion", does: "must be kubeproxy.config.k8s.io/v1alpha1"},
	{path: "kind", does: "must be KubeProxyConfiguration"},
	{path: "featureGates", does: "`AllowServiceExternalIPs: false` leaves out external IPs; `KubeProxyNFTablesLocalhostNodePorts: true` serves node ports on localhost in the mode nftables, if `nodePortAddresses` name it", not: "kube-nft has no such gate"},
	{path: "clientConnection.kubeconfig", does: "how to reach the API server; without it the pod's service account, with `--master`"},
	{path: "clientConnection.acceptContentTypes", does: "what is asked of the API server"},
	{path: "clientConnection.contentType", does: "what is asked of, and sent to, the API server"},
	{path: "clientConnection.qps", does: "requests a second to the API server; below 0 is no limit"},
	{path: "clientConnection.burst", does: "requests at once to the API server"},
	{path: "logging.format", does: "`text` or `json`"},
	{path: "logging.flushFrequency", not: plainLogs},
	{path: "logging.verbosity", does: "from 2 on, every commit is logged; changes without a restart"},
	{path: "logging.vmodule", not: plainLogs},
	{path: "logging.options.text.splitStream", not: plainLogs},
	{path: "logging.options.text.infoBufferSize", not: plainLogs},
	{path: "logging.options.json.splitStream", not: plainLogs},
	{path: "logging.options.json.infoBufferSize", not: plainLogs},
	{path: "hostnameOverride", does: "the name of this node; `--hostname-override` goes before"},
	{path: "bindAddress", does: "this node's primary address, instead of its Node's; nothing is bound to it"},
	{path: "healthzBindAddress", does: "where `/healthz`, `/livez` and `/readyz` are served"},
	{path: "metricsBindAddress", does: "where metrics are served, `/proxyMode`, `/configz`, and profiles"},
	{path: "bindAddressHardFail", does: "the process ends if it cannot listen at one of the two; else it tries again every 5 s"},
	{path: "enableProfiling", does: "serves `/debug/pprof/` and `/debug/flags/v` beside metrics; changes without a restart"},
	{path: "showHiddenMetricsForVersion", not: nothingHid},
	{path: "mode", does: "whose place is taken: its section counts, and its defaults for node ports; empty is iptables"},
	{path: "iptables.masqueradeBit", does: "which bit of the packet mark is ours", not: OtherMode, counts: inIPTablesOrIPVS},
	{path: "iptables.masqueradeAll", does: "masquerades every connection to a ClusterIP", not: OtherMode, counts: inIPTablesOrIPVS, matters: true},
	{path: "iptables.localhostNodePorts", does: "serves node ports on 127.0.0.1, and on ::1, through a relay, if `nodePortAddresses` are unset or include loopback", not: OtherMode, counts: inIPTables},
	{path: "iptables.syncPeriod", does: "`/healthz` fails once a change has waited for twice as long", not: OtherMode, counts: inIPTables},
	{path: "iptables.minSyncPeriod", not: atOnce},
	{path: "ipvs.syncPeriod", does: "`/healthz` fails once a change has waited for twice as long", not: OtherMode, counts: inIPVS},
	{path: "ipvs.minSyncPeriod", not: atOnce},
	{path: "ipvs.scheduler", not: "each new connection goes to an endpoint at random, all alike", matters: true},
	{path: "ipvs.excludeCIDRs", not: "nothing that is not ours is ever touched"},
	{path: "ipvs.strictARP", not: "Service addresses are bound to no interface, so nobody answers ARP for them; what other programs want of arp_ignore they must set"},
	{path: "ipvs.tcpTimeout", not: notIPVS, matters: true},
	{path: "ipvs.tcpFinTimeout", not: notIPVS},
	{path: "ipvs.udpTimeout", not: notIPVS, matters: true},
	{path: "nftables.masqueradeBit", does: "which bit of the packet mark is ours", not: OtherMode, counts: inNFTables},
	{path: "nftables.masqueradeAll", does: "masquerades every connection to a ClusterIP", not: OtherMode, counts: inNFTables, matters: true},
	{path: "nftables.syncPeriod", does: "`/healthz` fails once a change has waited for twice as long", not: OtherMode, counts: inNFTables},
	{path: "nftables.minSyncPeriod", not: atOnce},
	{path: "winkernel.networkName", not: onWindows},
	{path: "winkernel.sourceVip", not: onWindows},
	{path: "winkernel.enableDSR", not: onWindows},
	{path: "winkernel.rootHnsEndpointName", not: onWindows},
	{path: "winkernel.forwardHealthCheckVip", not: onWindows},
	{path: "detectLocalMode", does: "how pods of this node are known: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix"},
	{path: "detectLocal.bridgeInterface", does: "the bridge's name, for BridgeInterface", not: "detectLocalMode is another one", counts: detects("BridgeInterface"), matters: true},
	{path: "detectLocal.interfaceNamePrefix", does: "how names begin, for InterfaceNamePrefix", not: "detectLocalMode is another one", counts: detects("InterfaceNamePrefix"), matters: true},
	{path: "clusterCIDR", does: "the addresses of all pods, for ClusterCIDR", not: "detectLocalMode is another one", counts: detects("ClusterCIDR")},
	{path: "nodePortAddresses", does: "where node ports are served: `primary`, `all`, `localhost`, CIDRs; unset is `all` in the modes iptables and ipvs, `primary` in nftables"},
	{path: "oomScoreAdj", does: "written for the process itself, if it may; changes without a restart"},
	{path: "conntrack.maxPerCore", does: "raises the limit of tracked connections; 0 leaves it"},
	{path: "conntrack.min", does: "raises that limit to at least so many"},
	{path: "conntrack.tcpEstablishedTimeout", does: "timeout of idle TCP connections; 0 leaves it"},
	{path: "conntrack.tcpCloseWaitTimeout", does: "timeout of TCP connections that one side has closed; 0 leaves it"},
	{path: "conntrack.tcpBeLiberal", does: "lets packets outside of the TCP window pass"},
	{path: "conntrack.udpTimeout", does: "timeout of idle UDP flows that nobody answered; 0 leaves it"},
	{path: "conntrack.udpStreamTimeout", does: "timeout of idle UDP flows that were answered; 0 leaves it"},
	{path: "configSyncPeriod", not: "the API server tells of each change, and what is known is not delivered again"},
	{path: "portRange", not: "kube-proxy does not use it either"},
	{path: "windowsRunAsService", not: onWindows},
}

// Note says of a field that is set that it has no effect.
type Note struct {
	Field, Value string
	Why          string
	Matters      bool // whoever set it may feel the lack
}

// Notes lists what is set in a configuration, other than by default, and has no
// effect. The configuration has its defaults.
func Notes(c *Configuration) []Note {
	have, usual := leaves(c), leaves(New())
	var all []Note
	for _, f := range fields {
		idle := f.does == "" || f.counts != nil && !f.counts(c)
		if idle && have[f.path] != usual[f.path] {
			all = append(all, Note{f.path, have[f.path], f.not, f.matters})
		}
	}
	for _, gate := range slices.Sorted(maps.Keys(c.FeatureGates)) {
		if gate != allowExternalIPs && gate != localhostInNFTables {
			all = append(all, Note{"featureGates." + gate, fmt.Sprint(c.FeatureGates[gate]), "kube-nft has no such gate", false})
		}
	}
	return all
}

// Counts reports whether a field means anything here, at least in some mode.
func Counts(path string) bool {
	i := slices.IndexFunc(fields, func(f field) bool { return f.path == path })
	return i >= 0 && fields[i].does != ""
}

// Changed lists the fields in which two configurations differ.
func Changed(a, b *Configuration) (paths []string) {
	before, after := leaves(a), leaves(b)
	for _, f := range fields {
		if before[f.path] != after[f.path] {
			paths = append(paths, f.path)
		}
	}
	return paths
}

// leaves is every field's value in JSON, by path.
func leaves(c *Configuration) map[string]string {
	all := make(map[string]string)
	walk("", reflect.ValueOf(c).Elem(), func(path string, v reflect.Value) {
		text, err := json.Marshal(v.Interface())
		if err != nil {
			text = fmt.Append(nil, v.Interface())
		}
		switch value := strings.Trim(string(text), `"`); value {
		case "null", "[]", "{}": // as good as missing
			all[path] = ""
		default:
			all[path] = value
		}
	})
	return all
}

func walk(path string, v reflect.Value, visit func(string, reflect.Value)) {
	for name, field := range fieldsOf(v) {
		at := name
		if path != "" {
			at = path + "." + name
		}
		if isObject(field.Type()) {
			walk(at, field, visit)
		} else {
			visit(at, field)
		}
	}
}
