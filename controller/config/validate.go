// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/netip"
	"time"
)

// Problem is what is wrong with a field.
type Problem struct{ Field, Text string }

// Validate checks a configuration that has its defaults, by kube-proxy's rules
// (pkg/proxy/apis/config/validation of Kubernetes), and returns every problem.
//
// Node port addresses, cluster CIDRs and names of interfaces are checked where they
// are read.
func Validate(c *Configuration) []Problem {
	v := validator{}
	switch c.Mode {
	case "", IPTables, IPVS, NFTables:
	default:
		v.note("mode", "%q is none of iptables, ipvs, nftables, or empty, which means iptables", c.Mode)
	}
	v.bit("iptables.masqueradeBit", c.IPTables.MasqueradeBit)
	v.bit("nftables.masqueradeBit", c.NFTables.MasqueradeBit)
	v.periods(c)
	v.conntrack(c)
	if c.Mode == IPVS {
		v.ipvs(c)
	}
	if n := *c.OOMScoreAdj; n < -1000 || n > 1000 {
		v.note("oomScoreAdj", "%d is not in -1000-1000", n)
	}
	if c.ClientConnection.Burst < 0 {
		v.note("clientConnection.burst", "%d is below 0", c.ClientConnection.Burst)
	}
	if _, err := netip.ParseAddr(c.BindAddress); err != nil {
		v.note("bindAddress", "%q is not an IP address", c.BindAddress)
	}
	v.address("healthzBindAddress", c.HealthzBindAddress)
	v.address("metricsBindAddress", c.MetricsBindAddress)
	if f := c.Logging.Format; f != "text" && f != "json" {
		v.note("logging.format", "%q is neither text nor json", f)
	}
	return v.problems
}

type validator struct{ problems []Problem }

func (v *validator) note(field, format string, args ...any) {
	v.problems = append(v.problems, Problem{field, fmt.Sprintf(format, args...)})
}

func (v *validator) bit(field string, bit *int32) {
	if *bit < 0 || *bit > 31 {
		v.note(field, "%d is not in 0-31", *bit)
	}
}

func (v *validator) notNegative(field string, d time.Duration) {
	if d < 0 {
		v.note(field, "%v is below 0", d)
	}
}

// periods checks those that count in the mode, as kube-proxy does.
func (v *validator) periods(c *Configuration) {
	section, sync, least := "iptables", c.IPTables.SyncPeriod, c.IPTables.MinSyncPeriod
	switch c.Mode {
	case IPVS:
		section, sync, least = "ipvs", c.IPVS.SyncPeriod, c.IPVS.MinSyncPeriod
	case NFTables:
		section, sync, least = "nftables", c.NFTables.SyncPeriod, c.NFTables.MinSyncPeriod
	}
	if sync.Duration <= 0 {
		v.note(section+".syncPeriod", "%v is not above 0", sync.Duration)
	}
	v.notNegative(section+".minSyncPeriod", least.Duration)
	if least.Duration > sync.Duration {
		v.note(section+".minSyncPeriod", "%v is longer than the syncPeriod of %v", least.Duration, sync.Duration)
	}
	if d := c.ConfigSyncPeriod.Duration; d <= 0 {
		v.note("configSyncPeriod", "%v is not above 0", d)
	}
}

func (v *validator) conntrack(c *Configuration) {
	t := &c.Conntrack
	for _, n := range []struct {
		field string
		n     int32
	}{{"conntrack.maxPerCore", *t.MaxPerCore}, {"conntrack.min", *t.Min}} {
		if n.n < 0 {
			v.note(n.field, "%d is below 0", n.n)
		}
	}
	v.notNegative("conntrack.tcpEstablishedTimeout", t.TCPEstablishedTimeout.Duration)
	v.notNegative("conntrack.tcpCloseWaitTimeout", t.TCPCloseWaitTimeout.Duration)
	v.notNegative("conntrack.udpTimeout", t.UDPTimeout.Duration)
	v.notNegative("conntrack.udpStreamTimeout", t.UDPStreamTimeout.Duration)
}

// ipvs checks what means nothing here: who goes back to kube-proxy is to find the
// file as good as it was.
func (v *validator) ipvs(c *Configuration) {
	v.notNegative("ipvs.tcpTimeout", c.IPVS.TCPTimeout.Duration)
	v.notNegative("ipvs.tcpFinTimeout", c.IPVS.TCPFinTimeout.Duration)
	v.notNegative("ipvs.udpTimeout", c.IPVS.UDPTimeout.Duration)
	for i, cidr := range c.IPVS.ExcludeCIDRs {
		if _, err := netip.ParsePrefix(cidr); err != nil {
			v.note(fmt.Sprintf("ipvs.excludeCIDRs[%d]", i), "%q is not a CIDR like 192.0.2.0/24", cidr)
		}
	}
}

// address checks where to listen; empty is nowhere.
func (v *validator) address(field, address string) {
	if address == "" {
		return
	}
	if a, err := netip.ParseAddrPort(address); err != nil || a.Port() == 0 {
		v.note(field, "%q is not an IP address and a port, as in 127.0.0.1:10249 or [::]:10249", address)
	}
}
