// SPDX-License-Identifier: Apache-2.0

// Package peer describes the Service proxies that are compared: where each comes from
// and how it is started. All of them get the same settings, which are those of a usual
// cluster, and kube-proxy's own defaults for the rest.
package peer

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Peer describes one proxy.
type Peer struct {
	Name  string
	About string
	// Module is the directory of this repository whose go.mod pins a kube-proxy; empty
	// is kube-nft.
	Module string
	Mode   string // of kube-proxy
	// Tools is the kind of iptables that the proxy finds, "legacy" or "nft"; empty is
	// that of the machine, should it run any.
	Tools string
	Needs []string // programs that it runs
	Needy string   // a file that the kernel has if the proxy can work on it
	// MinSync is how long the proxy waits between two passes over its tables. Whoever
	// wants to meet it idle waits longer.
	MinSync time.Duration
	// Most is how many Services a full comparison gives it: beyond, it would take an hour, or several.
	// Zero is any number.
	Most int
}

const (
	newest = "tests/kubernetes"
	older  = "tests/compare/kube-proxy-1.36"
)

// All are the peers. Adding one is adding a line here if it is a kube-proxy.
var All = []Peer{
	{Name: "kube-nft", About: "of this checkout"},
	{Name: "nftables", About: "kube-proxy, mode nftables", Module: newest, Mode: "nftables", Needs: []string{"nft"}, MinSync: time.Second, Most: 30_000},
	{Name: "nftables-1.36", About: "the same of Kubernetes 1.36", Module: older, Mode: "nftables", Needs: []string{"nft"}, MinSync: time.Second, Most: 10_000},
	{Name: "iptables", About: "kube-proxy, mode iptables, with iptables-legacy", Module: newest, Mode: "iptables", Tools: "legacy", MinSync: time.Second, Most: 44_125},
	{Name: "iptables-nft", About: "kube-proxy, mode iptables, with iptables-nft", Module: newest, Mode: "iptables", Tools: "nft", MinSync: time.Second, Most: 1_000},
	{Name: "ipvs", About: "kube-proxy, mode ipvs", Module: newest, Mode: "ipvs", Tools: "legacy", Needs: []string{"ipset"}, Needy: "/proc/net/ip_vs", MinSync: time.Second},
}

// Find returns the peers with these names, in their order.
func Find(names ...string) (found []Peer, err error) {
	for _, name := range names {
		at := slices.IndexFunc(All, func(p Peer) bool { return p.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("no peer %q, there are %s", name, strings.Join(Names(All), ", "))
		}
		found = append(found, All[at])
	}
	return found, nil
}

// Names are those of peers.
func Names(peers []Peer) (names []string) {
	for _, p := range peers {
		names = append(names, p.Name)
	}
	return names
}

// Missing says why the peer cannot run here; empty is that it can.
func (p Peer) Missing() string {
	for _, name := range p.needs() {
		if _, err := lookPath(name); err != nil {
			return name + " is not installed"
		}
	}
	if p.Needy != "" {
		if _, err := os.Stat(p.Needy); err != nil {
			return "this kernel has no " + filepath.Base(p.Needy)
		}
	}
	return ""
}

// Netfilter reports whether the peer's tables are those of nftables, and so behind its
// lock; iptables-nft's are.
func (p Peer) Netfilter() bool { return p.Tools != "legacy" }

func (p Peer) needs() []string {
	needs := p.Needs
	if p.Tools != "" {
		needs = append(slices.Clone(needs), multi(p.Tools))
	}
	return needs
}

// multi is the program that all of iptables are links to.
func multi(tools string) string { return "xtables-" + tools + "-multi" }

// lookPath finds a program that may be for administrators.
func lookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	return path, err
}
