// SPDX-License-Identifier: Apache-2.0

// Package kubeproxy finds what kube-proxy has left in a network namespace, in any of
// its modes, and removes it: over netlink and the sockets of xtables alone.
//
//	mode       what is left                                              read and removed over
//	nftables   tables `ip kube-proxy` and `ip6 kube-proxy`               nf_tables
//	iptables   chains KUBE-… in nat, filter and mangle, and the jumps    nf_tables (iptables-nft), or
//	           to them in PREROUTING, INPUT, FORWARD, OUTPUT, …          getsockopt, setsockopt (iptables-legacy)
//	ipvs       the same with other chains; ipsets KUBE-…; virtual        nfnetlink ipset, generic netlink
//	           services; the device kube-ipvs0                           IPVS, rtnetlink
//
// What is kube-proxy's is what its own cleanup removes (pkg/proxy/*/cleanup.go of
// Kubernetes), with three differences, each in names.go beside what it is about: a
// chain that somebody else's rule jumps to stays, virtual services of others stay, and
// what kube-proxy forgets goes as well. What is kubelet's stays: the chains
// KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-IPTABLES-HINT and KUBE-KUBELET-CANARY.
//
// The rules of a family and table go in one transaction; everybody else's rules stay as
// they are, byte for byte and with their counters. Tracked connections are not touched,
// but for silent flows of UDP through IPVS, and all that goes through IPVS if it is to end
// at once: conntrack forgets them, so that another proxy can take them over. Nothing is
// asked that would make the kernel load a module or make a table.
package kubeproxy
