// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestMetrics: what packets do shows in the metrics of the node: clients that are
// remembered (A3.12), and Service ports that are dropped for want of an endpoint
// here (A3.1, A3.6).
func TestMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	port := servicePort("http", corev1.ProtocolTCP, 80)
	sticky := service("sticky", 1, port)
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	c.write(t, "sticky.yaml", withSlices(sticky, c.a)...)
	local := service("local", 2, port)
	local.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	c.write(t, "local.yaml", withSlices(local, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	for _, from := range []*host{c.client, c.b} {
		for _, f := range []family{ip4, ip6} {
			c.served(t, from, "tcp", netip.AddrPortFrom(clusterIP(1)[f], 80), eitherSource, "a")
		}
	}
	series := c.scrape(t)
	for _, f := range []family{ip4, ip6} {
		for want, value := range map[string]string{
			`kube_nft_affinity_clients{ip_family="%s",namespace="default",port="http",protocol="tcp",service="sticky"}`: "2",
			`kube_nft_affinity_clients_limit`: "65536",
			`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="%s",traffic_policy="internal"}`: "1",
			`kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="%s",traffic_policy="external"}`: "0",
			`kube_nft_frontend_conflicts{ip_family="%s"}`:                                                   "0",
			`kube_nft_commits_total{result="error"}`:                                                        "0",
			`kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="%s"}`:                       "0",
			`kubeproxy_sync_proxy_rules_endpoint_changes_pending`:                                           "0",
		} {
			want = strings.ReplaceAll(want, "%s", f.String())
			if series[want] != value {
				t.Errorf("%s is %q, want %s", want, series[want], value)
			}
		}
	}
}

// TestServiceMetrics: connections of Service ports are counted, of the busiest ones.
func TestServiceMetrics(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for n := 1; n <= 3; n++ {
		c.write(t, fmt.Sprintf("%d.yaml", n), withSlices(withNodePort(service(fmt.Sprint("s", n), n, servicePort("http", corev1.ProtocolTCP, 80)), uint16(30080+n)), c.a)...)
	}
	c.run(t, "--cluster-cidr", clusterCIDR, "--service-metrics", "4")
	c.scrape(t) // connections count from the first reading on
	for n := 1; n <= 2; n++ {
		for range 10 * n {
			for f := range families {
				for _, dst := range []netip.AddrPort{netip.AddrPortFrom(clusterIP(n)[f], 80), netip.AddrPortFrom(outside[f], uint16(30080+n))} {
					_, err := c.client.ask("tcp", dst, patience)
					c.Must(err)
				}
			}
		}
	}
	series := c.scrape(t)
	for _, f := range families {
		for n, want := range []string{1: "20", 2: "40", 3: ""} {
			name := fmt.Sprintf(`kube_nft_service_connections_total{ip_family="%s",namespace="default",port="http",protocol="tcp",service="s%d"}`, f, n)
			if n > 0 && series[name] != want {
				t.Errorf("%s is %q, want %q", name, series[name], want)
			}
		}
	}
	if got := series["kube_nft_service_ports_omitted"]; got == "0" || got == "" {
		t.Errorf("%q Service ports are left out", got)
	}
}

// scrape returns the node's metrics, values by series.
func (c *cluster) scrape(t *testing.T) map[string]string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: c.node.DialContext, DisableKeepAlives: true}}
	series := make(map[string]string)
	c.Eventually(10*time.Second, func() error {
		response, err := client.Get("http://127.0.0.1:10249/metrics")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("metrics: %s", response.Status)
		}
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), " ")
			series[name] = value
		}
		return lines.Err()
	})
	return series
}
