// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/kube-proxy/config/v1alpha1"
)

// Settings are what depends on the mode whose place kube-nft takes.
type Settings struct {
	Mode          v1alpha1.ProxyMode // never empty
	MasqueradeBit uint8
	MasqueradeAll bool
	// SyncPeriod is the mode's. Nothing is synchronized by it here, but health is
	// judged by it: twice as long a change may wait.
	SyncPeriod time.Duration
	// NodePortAddresses are never empty.
	NodePortAddresses []string
	// LocalhostNodePorts: node ports are served on 127.0.0.1 too.
	LocalhostNodePorts bool
	// ExternalIPs: spec.externalIPs of Services are served.
	ExternalIPs bool
}

// SettingsOf reads a configuration that is valid and has its defaults.
//
// The modes differ in two things that clients can tell. Without nodePortAddresses,
// iptables and ipvs serve node ports on all local addresses and nftables on the
// primary ones; and iptables serves them on 127.0.0.1, the others not (pkg/proxy/{iptables,ipvs,
// nftables}/proxier.go of Kubernetes).
func SettingsOf(c *Configuration) Settings {
	s := Settings{
		Mode:              Mode(c),
		MasqueradeBit:     uint8(*c.IPTables.MasqueradeBit),
		MasqueradeAll:     c.IPTables.MasqueradeAll,
		SyncPeriod:        c.IPTables.SyncPeriod.Duration,
		NodePortAddresses: slices.Clone(c.NodePortAddresses),
		ExternalIPs:       externalIPs(c),
	}
	unset := "all"
	switch s.Mode {
	case IPVS:
		s.SyncPeriod = c.IPVS.SyncPeriod.Duration
	case NFTables:
		s.MasqueradeBit, s.MasqueradeAll = uint8(*c.NFTables.MasqueradeBit), c.NFTables.MasqueradeAll
		s.SyncPeriod = c.NFTables.SyncPeriod.Duration
		unset = "primary"
	}
	if len(s.NodePortAddresses) == 0 {
		s.NodePortAddresses = []string{unset}
	}
	switch s.Mode {
	case IPTables:
		s.LocalhostNodePorts = *c.IPTables.LocalhostNodePorts && coverLoopback(s.NodePortAddresses)
	case NFTables:
		s.LocalhostNodePorts = c.FeatureGates[localhostInNFTables] && nameLoopback(s.NodePortAddresses)
	}
	return s
}

// Mode is the mode that kube-proxy would run in.
func Mode(c *Configuration) v1alpha1.ProxyMode {
	if c.Mode == "" {
		return IPTables
	}
	return c.Mode
}

// The feature gates that mean something here.
const (
	// allowExternalIPs is on by default (Kubernetes 1.36).
	allowExternalIPs = "AllowServiceExternalIPs"
	// localhostInNFTables has kube-proxy relay connections to 127.0.0.1 in the mode
	// nftables, where nodePortAddresses name loopback (Kubernetes 1.37, off by default).
	localhostInNFTables = "KubeProxyNFTablesLocalhostNodePorts"
)

func externalIPs(c *Configuration) bool {
	allowed, set := c.FeatureGates[allowExternalIPs]
	return allowed || !set
}

// nameLoopback reports whether node port addresses name loopback, other than among
// all addresses.
func nameLoopback(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		p, err := netip.ParsePrefix(strings.TrimSpace(w))
		return strings.TrimSpace(w) == "localhost" || err == nil && p.Addr().IsLoopback()
	})
}

// coverLoopback reports whether node port addresses include loopback of IPv4, the
// only one that the iptables mode serves.
func coverLoopback(words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		w = strings.TrimSpace(w)
		if w == "all" || w == "localhost" {
			return true
		}
		p, err := netip.ParsePrefix(w)
		return err == nil && p.Overlaps(netip.MustParsePrefix("127.0.0.0/8"))
	})
}
