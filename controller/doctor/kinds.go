// SPDX-License-Identifier: Apache-2.0

package doctor

// The kinds of findings. docs/doctor.md is made from them.
var (
	kernelLacks = &Kind{"kernel-lacks", Error, "the kernel is older than 5.13, or lacks an expression of nf_tables that our tables need",
		"no table can be made, so no Service works", "upgrade the kernel, enable the option, or load the module that is named"}

	forwardingOff = &Kind{"forwarding-off", Error, "the kernel does not forward packets of a family that is served, or not those of an interface",
		"packets to pods that come from elsewhere are thrown away after translation", "sysctl -w net.ipv4.ip_forward=1, sysctl -w net.ipv6.conf.all.forwarding=1"}
	conntrackFull = &Kind{"conntrack-full", Error, "the connection tracking table is full by 95% or more",
		"the kernel drops the first packet of new connections, of Services and all others", "sysctl -w net.netfilter.nf_conntrack_max=N, on the host"}
	conntrackFilling = &Kind{"conntrack-filling", Warning, "the connection tracking table is full by 80% or more",
		"when it is full, new connections are dropped", "sysctl -w net.netfilter.nf_conntrack_max=N, on the host"}
	conntrackHash = &Kind{"conntrack-hash", Warning, "the hash table of connection tracking has fewer than one bucket for 8 connections that are tracked",
		"every packet walks a long list", "sysctl -w net.netfilter.nf_conntrack_buckets=N, on the host"}
	routeLocalnet = &Kind{"route-localnet", Warning, "route_localnet is on; kube-proxy in iptables mode leaves it so",
		"neighbours may reach what listens on 127.0.0.1 (CVE-2020-8558); kube-nft never needs it", "sysctl -w net.ipv4.conf.all.route_localnet=0"}
	reversePath = &Kind{"rp-filter", Note, "rp_filter is strict on an interface, and the kernel has dropped packets for it",
		"packets that come in by another interface than answers go out by are lost: nodes with several uplinks, or policy routing", "sysctl -w net.ipv4.conf.INTERFACE.rp_filter=2"}
	bridgeNetfilter = &Kind{"bridge-netfilter", Error, "pods are ports of a bridge, and bridged packets do not pass netfilter",
		"a pod that reaches a pod on its own bridge through a Service gets answers from an address that it never asked", "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1"}

	tableMissing = &Kind{"table-missing", Error, "a family has no table kube-nft",
		"Services of that family are not served here", "start kube-nft: docs/install.md"}
	tableForeign = &Kind{"table-foreign", Error, "a table has our name, and is not ours",
		"kube-nft does not touch what it has not made, so it programs nothing", "nft delete table FAMILY kube-nft, if nobody needs it"}
	tableSchema = &Kind{"table-schema", Warning, "our table is one of another version of kube-nft",
		"this version can neither show nor explain it; kube-nft replaces it when it starts", "restart kube-nft, or use the version that runs here"}
	tableAltered = &Kind{"table-altered", Error, "chains or rules of our table are not those that kube-nft makes",
		"Services may not work as they should; a kube-nft that runs puts it right by itself, unless somebody changes it again and again", "start kube-nft, or restart it; kube-nft's log says what changes"}
	tableDormant = &Kind{"table-dormant", Error, "our table is dormant",
		"packets pass it by: no Service works", "nft add table FAMILY kube-nft, which wakes it, or restart kube-nft"}
	setFilling = &Kind{"set-filling", Note, "a set of our table is full by 95% or more",
		"a change that does not fit has kube-nft make the table anew, larger, in one transaction: packets go on, counters start again", "none is needed"}
	affinityFilling = &Kind{"affinity-filling", Warning, "a Service port remembers 90% or more of the clients that it can",
		"when it is full, new clients are balanced with each connection", "a shorter timeout (sessionAffinityConfig.clientIP.timeoutSeconds) forgets clients sooner"}

	notRunning = &Kind{"not-running", Error, "there are tables, and no kube-nft runs that keeps them",
		"Services go on as they are, and follow no change of the cluster", "start kube-nft: docs/install.md"}
	notProgrammed = &Kind{"not-programmed", Warning, "kube-nft runs, and its tables are not yet what it wants",
		"it waits for the API server, or the kernel refuses a change", "see kube-nft's log, and /readyz"}
	socketTaken = &Kind{"socket-taken", Warning, "another user's process has the name of kube-nft's control socket",
		"commands cannot ask kube-nft, and a second kube-nft would not be noticed", "end that process: ss -xlp shows it"}
	kubeProxyRuns = &Kind{"kube-proxy-runs", Error, "kube-proxy runs in the same network namespace",
		"two proxies translate each their way: who comes first depends on the order in which they started", "stop kube-proxy on this node, then kube-nft migrate take-over"}
	kubeProxyLeft = &Kind{"kube-proxy-left", Warning, "rules, tables, sets, virtual services or the device of kube-proxy are in the kernel",
		"they follow no change any more, and may go before ours: Services that are gone still answer, endpoints that are gone get packets", "kube-nft migrate take-over"}

	endpointDropped = &Kind{"endpoint-dropped", Error, "another table drops or rejects translated packets on their way to an endpoint",
		"connections through Services fail: an accept in our tables is not final, every chain of a hook has its say", "accept what Services have translated there: nft insert rule FAMILY TABLE CHAIN ct status dnat accept"}
	frontendDropped = &Kind{"frontend-dropped", Error, "another table drops packets to a Service before we see them",
		"the Service cannot be reached that way", "except the Service's address and port there"}
	translatedBefore = &Kind{"translated-before", Warning, "another table translates packets to a Service before us, or at the same place",
		"who translates first wins, so that clients may reach something else than the Service's endpoints", "remove that rule, or give one of the two another port"}
	untracked = &Kind{"notrack", Error, "a rule takes packets to a Service out of connection tracking",
		"what is not tracked is not translated: the Service cannot be reached", "remove the rule, or except the Service's addresses"}
	markConflict = &Kind{"mark-conflict", Warning, "another table or policy routing uses the bit of the packet mark that asks for masquerading",
		"packets are masqueraded that should not be, or the other way round, or are routed or filtered otherwise", "give kube-nft another bit: --iptables-masquerade-bit N, or nftables.masqueradeBit in the configuration"}
	traceLeft = &Kind{"trace-table", Note, "the table of `kube-nft trace` is there",
		"a trace costs packets time; it goes by itself when the trace ends", "end that trace (ps -ef | grep 'kube-nft trace'): the table belongs to it, and goes with it"}

	nodePortListener = &Kind{"port-shadowed", Warning, "a process listens on an address and port that are a frontend of a Service",
		"packets from elsewhere go to the Service, the process does not get them", "give the process, or the Service, another port"}
	nodePortRange = &Kind{"port-range", Note, "node ports are among the ports that the kernel gives to outgoing connections",
		"a process may be given the number of a node port, and then cannot be reached at it", "sysctl -w net.ipv4.ip_local_reserved_ports=FIRST-LAST"}
	addressOverlap = &Kind{"address-overlap", Warning, "the ClusterIP of a Service is an address of this host, or in the subnet of one of its interfaces",
		"the same address means two things: what we do not translate goes there, and hosts of that subnet behind a ClusterIP cannot be reached", "change the subnet, or the cluster's Service range"}
)

// Kinds lists all kinds of findings.
var Kinds = []*Kind{
	kernelLacks,
	forwardingOff, conntrackFull, conntrackFilling, conntrackHash, bridgeNetfilter, routeLocalnet, reversePath,
	tableMissing, tableForeign, tableSchema, tableAltered, tableDormant, setFilling, affinityFilling,
	notRunning, notProgrammed, socketTaken, kubeProxyRuns, kubeProxyLeft,
	endpointDropped, frontendDropped, translatedBefore, untracked, markConflict, traceLeft,
	nodePortListener, nodePortRange, addressOverlap,
}
