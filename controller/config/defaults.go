// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// Modes of kube-proxy on Linux.
const (
	IPTables v1alpha1.ProxyMode = "iptables"
	IPVS     v1alpha1.ProxyMode = "ipvs"
	NFTables v1alpha1.ProxyMode = "nftables"
)

// Ports of kube-proxy (pkg/cluster/ports of Kubernetes).
const (
	healthzPort = 10256
	metricsPort = 10249
)

// New returns a configuration that holds all defaults and nothing else.
func New() *Configuration {
	c := &Configuration{}
	c.APIVersion, c.Kind = apiVersion, kind
	SetDefaults(c)
	return c
}

// SetDefaults fills in what is missing, as kube-proxy does
// (pkg/proxy/apis/config/v1alpha1/defaults.go of Kubernetes). A mode that is missing
// stays so: it means iptables there (Mode).
func SetDefaults(c *Configuration) {
	SetEmpty(c)
	everywhere, loopback := "0.0.0.0", "127.0.0.1"
	if a, err := netip.ParseAddr(c.BindAddress); err == nil && a.Is6() && !a.Is4In6() {
		everywhere, loopback = "::", "::1"
	}
	c.HealthzBindAddress = cmp.Or(c.HealthzBindAddress, WithPort(everywhere, healthzPort))
	c.MetricsBindAddress = cmp.Or(c.MetricsBindAddress, WithPort(loopback, metricsPort))

	fill(&c.OOMScoreAdj, -999)
	fill(&c.IPTables.MasqueradeBit, 14)
	fill(&c.NFTables.MasqueradeBit, 14)
	fill(&c.IPTables.LocalhostNodePorts, true)
	fill(&c.Conntrack.MaxPerCore, 32768)
	fill(&c.Conntrack.Min, 131072)
	fill(&c.Conntrack.TCPEstablishedTimeout, metav1.Duration{Duration: 24 * time.Hour})
	fill(&c.Conntrack.TCPCloseWaitTimeout, metav1.Duration{Duration: time.Hour})

	for _, d := range []struct {
		of *metav1.Duration
		to time.Duration
	}{
		{&c.IPTables.SyncPeriod, 30 * time.Second}, {&c.IPTables.MinSyncPeriod, time.Second},
		{&c.IPVS.SyncPeriod, 30 * time.Second},
		{&c.NFTables.SyncPeriod, 30 * time.Second}, {&c.NFTables.MinSyncPeriod, time.Second},
		{&c.ConfigSyncPeriod, 15 * time.Minute},
	} {
		d.of.Duration = cmp.Or(d.of.Duration, d.to)
	}

	c.ClientConnection.ContentType = cmp.Or(c.ClientConnection.ContentType, "application/vnd.kubernetes.protobuf")
	c.ClientConnection.QPS = cmp.Or(c.ClientConnection.QPS, 5)
	c.ClientConnection.Burst = cmp.Or(c.ClientConnection.Burst, 10)
	c.Logging.Format = cmp.Or(c.Logging.Format, "text")
	if c.Logging.FlushFrequency.Duration.Duration == 0 {
		c.Logging.FlushFrequency.Duration.Duration = 5 * time.Second
		c.Logging.FlushFrequency.SerializeAsString = true
	}
}

// SetEmpty fills in what cannot be meant to be empty, or without a port. Unlike
// SetDefaults it leaves alone what somebody who types flags may well want to be empty
// or zero.
func SetEmpty(c *Configuration) {
	c.BindAddress = cmp.Or(c.BindAddress, "0.0.0.0")
	c.HealthzBindAddress = WithPort(c.HealthzBindAddress, healthzPort)
	c.MetricsBindAddress = WithPort(c.MetricsBindAddress, metricsPort)
	c.DetectLocalMode = cmp.Or(c.DetectLocalMode, "ClusterCIDR")
}

func fill[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

// WithPort appends a port to what is an IP address alone.
func WithPort(address string, port int) string {
	if a, err := netip.ParseAddr(address); err == nil {
		return net.JoinHostPort(a.String(), strconv.Itoa(port))
	}
	return address
}
