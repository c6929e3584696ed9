// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/nft"
)

// measured returns a controller for IPv4 over a fake, and its metrics.
func measured(counter ClientCounter, log *bytes.Buffer) (*Controller, *fake, *prometheus.Registry) {
	config := testConfig()
	delete(config.Options, nft.IPv6)
	registry := prometheus.NewPedanticRegistry()
	config.Metrics, config.Clients = registry, counter
	config.Logger = slog.New(slog.NewTextHandler(log, nil))
	f := newFake()
	return New(config, f), f, registry
}

// values returns the metrics that are not zero by their name and the values of
// their labels; of a histogram the number of observations. Times of day are left
// out.
func values(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]float64)
	for _, family := range families {
		if strings.HasSuffix(family.GetName(), "_timestamp_seconds") {
			continue
		}
		for _, m := range family.Metric {
			name := []string{family.GetName()}
			for _, l := range m.Label {
				name = append(name, l.GetValue())
			}
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if v != 0 {
				all[strings.Join(name, " ")] = v
			}
		}
	}
	return all
}

// wanting is a Service of two ports that wants the external IP 192.0.2.1; its
// policies are Local.
func wanting(name, clusterIP string, created int64) *corev1.Service {
	local := corev1.ServiceInternalTrafficPolicyLocal
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-of-" + name), CreationTimestamp: metav1.Unix(created, 0)},
		Spec: corev1.ServiceSpec{
			ClusterIP: clusterIP, ExternalIPs: []string{"192.0.2.1"}, InternalTrafficPolicy: &local,
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			Ports:                 []corev1.ServicePort{{Port: 80}, {Name: "other", Port: 81}},
		},
	}
}

// elsewhere is a slice of a Service's first port with an endpoint on another node.
func elsewhere(service string) *discoveryv1.EndpointSlice {
	node, ready, port, none := "node-1", true, int32(8080), ""
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service + "-1",
			Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &none, Port: &port}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.128.1.1"}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	}
}

// TestMetrics follows them through what a Controller does.
func TestMetrics(t *testing.T) {
	c, f, registry := measured(nil, &bytes.Buffer{})
	pass := func() {
		t.Helper()
		if err := c.pass(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	check := func(name string, want map[string]float64) {
		t.Helper()
		if d := cmp.Diff(want, values(t, registry)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	pass()
	check("before anything is known", map[string]float64{})
	c.queue.SetService(wanting("first", "10.96.0.1", 1))
	c.queue.SetService(wanting("second", "10.96.0.2", 2))
	c.queue.Synced()
	pass()
	state := map[string]float64{
		"kube_nft_commits_total success": 1, "kube_nft_commit_duration_seconds": 1, "kube_nft_resyncs_total": 1,
		"kube_nft_frontend_conflicts IPv4":         2,
		"kube_nft_elements IPv4 KUBE-CLUSTER-IP":   2,
		"kube_nft_elements IPv4 KUBE-NODE-IP":      1,
		"kube_nft_elements IPv4 KUBE-NO-ENDPOINTS": 6,

		"kubeproxy_sync_proxy_rules_duration_seconds IPv4": 1, "kubeproxy_sync_full_proxy_rules_duration_seconds IPv4": 1,
		"kubeproxy_sync_proxy_rules_service_changes_total": 2,
	}
	check("two Services that both want an address", state)
	pass()
	check("nothing new", state)
	c.queue.DeleteService(types.NamespacedName{Namespace: "default", Name: "second"})
	pass()
	delete(state, "kube_nft_frontend_conflicts IPv4")
	state["kube_nft_elements IPv4 KUBE-CLUSTER-IP"], state["kube_nft_elements IPv4 KUBE-NO-ENDPOINTS"] = 1, 4
	state["kube_nft_commits_total success"], state["kube_nft_commit_duration_seconds"] = 2, 2
	state["kubeproxy_sync_proxy_rules_duration_seconds IPv4"], state["kubeproxy_sync_partial_proxy_rules_duration_seconds IPv4"] = 2, 1
	state["kubeproxy_sync_proxy_rules_service_changes_total"] = 3
	check("the conflict has ended", state)
	for range 2 {
		c.rumours.hear(nft.Foreign{By: nft.Process{Name: "nft"}, Touched: []nft.Touched{{Family: nft.IPv4, Constant: "the table"}}})
	}
	pass()
	state["kube_nft_foreign_commits_total nft"] = 2
	state["kube_nft_drifts_total IPv4"], state["kube_nft_resyncs_total"] = 1, 2
	state["kubeproxy_sync_proxy_rules_duration_seconds IPv4"], state["kubeproxy_sync_full_proxy_rules_duration_seconds IPv4"] = 3, 2
	check("a change by somebody else that changed nothing", state)
	f.fail = []error{errors.New("no buffer space")}
	c.queue.SetService(wanting("third", "10.96.0.3", 3))
	if err := c.pass(context.Background()); err == nil {
		t.Fatal("no error")
	}
	state["kubeproxy_sync_proxy_rules_duration_seconds IPv4"], state["kubeproxy_sync_partial_proxy_rules_duration_seconds IPv4"] = 4, 2
	state["kubeproxy_sync_proxy_rules_nftables_sync_failures_total IPv4"] = 1
	state["kubeproxy_sync_proxy_rules_service_changes_total"], state["kubeproxy_sync_proxy_rules_service_changes_pending"] = 4, 1
	check("an error", state)
	pass()
	delete(state, "kubeproxy_sync_proxy_rules_service_changes_pending")
	state["kubeproxy_sync_proxy_rules_duration_seconds IPv4"], state["kubeproxy_sync_full_proxy_rules_duration_seconds IPv4"] = 5, 3
	state["kube_nft_commits_total success"], state["kube_nft_commit_duration_seconds"], state["kube_nft_resyncs_total"] = 3, 3, 3
	state["kube_nft_elements IPv4 KUBE-CLUSTER-IP"], state["kube_nft_elements IPv4 KUBE-NO-ENDPOINTS"] = 2, 6
	state["kube_nft_frontend_conflicts IPv4"] = 2
	check("and it is over", state)
}

// TestNoLocalMetric: endpoints are elsewhere alone.
func TestNoLocalMetric(t *testing.T) {
	c, _, registry := measured(nil, &bytes.Buffer{})
	c.queue.SetService(wanting("web", "10.96.0.1", 1))
	c.queue.SetSlice(elsewhere("web"))
	c.queue.Synced()
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := values(t, registry)
	for _, policy := range []string{"internal", "external"} {
		if n := got["kubeproxy_sync_proxy_rules_no_local_endpoints_total IPv4 "+policy]; n != 1 {
			t.Errorf("%s: %v Service ports, want the one that has endpoints", policy, n)
		}
	}
}

// counting is a ClientCounter.
type counting struct {
	clients map[nft.Port]int
	err     error
}

func (c *counting) AffinityClients(context.Context, nft.Family) (map[nft.Port]int, error) {
	return c.clients, c.err
}

func TestClientMetrics(t *testing.T) {
	const prefix = "kube_nft_affinity_clients IPv4 "
	var log bytes.Buffer
	kernel := &counting{clients: map[nft.Port]int{nft.PortOf("default/web/tcp/http"): 7, nft.PortOf("shop/dns/udp"): 3}}
	_, _, registry := measured(kernel, &log)
	want := map[string]float64{
		"kube_nft_affinity_clients_limit":                     nft.AffinitySize,
		"kube_nft_affinity_clients IPv4 default http tcp web": 7,
		"kube_nft_affinity_clients IPv4 shop  udp dns":        3,
	}
	if d := cmp.Diff(want, values(t, registry)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	for i := range 2 * maxClientSeries {
		kernel.clients[nft.PortOf(fmt.Sprintf("default/s%d/tcp", i))] = i + 100
	}
	got := values(t, registry)
	fullest, dropped := fmt.Sprintf("%sdefault  tcp s%d", prefix, 2*maxClientSeries-1), fmt.Sprintf("%sdefault  tcp s%d", prefix, maxClientSeries-1)
	if len(got) != maxClientSeries+1 || got[fullest] == 0 || got[dropped] != 0 {
		t.Errorf("%d series, the fullest one has %v, one of the lower half %v", len(got), got[fullest], got[dropped])
	}
	for _, err := range []error{nft.ErrUncounted, nft.ErrUncounted, errors.New("no buffer space"), errors.New("no buffer space"), nft.ErrUncounted} {
		kernel.clients, kernel.err = nil, err
		if got := values(t, registry); len(got) != 1 {
			t.Errorf("%v: %v", err, got)
		}
	}
	if lines := strings.Count(log.String(), "\n"); lines != 3 {
		t.Errorf("%d lines, want one whenever the reason changes:\n%s", lines, &log)
	}
}
