// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/nft"
)

// triggeredAt is elsewhere's slice, changed because of something at that time.
func triggeredAt(service string, at time.Time) *discoveryv1.EndpointSlice {
	s := elsewhere(service)
	s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: at.Format(time.RFC3339Nano)}
	return s
}

// TestTriggerTimes: which changes of EndpointSlices are measured, and when.
func TestTriggerTimes(t *testing.T) {
	const name = "kubeproxy_network_programming_duration_seconds IPv4"
	c, f, registry := measured(nil, &bytes.Buffer{})
	c.queue.started = time.Now().Add(-time.Hour)
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	want := 0
	pass := func(what string, more int, fails ...error) {
		t.Helper()
		f.fail = fails
		if err := c.pass(context.Background()); (err != nil) != (len(fails) > 0) {
			t.Fatalf("%s: %v", what, err)
		}
		want += more
		if got := int(values(t, registry)[name]); got != want {
			t.Errorf("%s: %d times, want %d", what, got, want)
		}
	}
	c.queue.SetService(wanting("web", "10.96.0.1", 1))
	first := triggeredAt("web", ago(time.Minute))
	c.queue.SetSlice(first)
	pass("before the source has synced", 0)
	c.queue.SetSlice(triggeredAt("other", ago(2*time.Hour)))
	c.queue.Synced()
	pass("one, and one from before the process", 1)
	c.queue.SetSlice(first)
	c.queue.SetSlice(elsewhere("other"))
	pass("a list brings them again", 0)

	calls := len(f.calls)
	c.queue.SetSlice(triggeredAt("web", ago(50*time.Second)))
	pass("nothing but the time has changed", 1)
	if len(f.calls) != calls {
		t.Errorf("that led to %v", f.calls[calls:])
	}
	c.queue.SetSlice(triggeredAt("web", ago(40*time.Second)))
	c.queue.SetSlice(triggeredAt("web", ago(30*time.Second)))
	c.queue.SetSlice(triggeredAt("other", ago(30*time.Second)))
	pass("two changes of one slice, one of another", 3)

	changed := triggeredAt("web", ago(20*time.Second))
	changed.Endpoints[0].Addresses[0] = "10.128.1.7"
	c.queue.SetSlice(changed)
	pass("a pass that fails", 0, errors.New("no buffer space"))
	c.queue.SetSlice(triggeredAt("other", ago(10*time.Second)))
	pass("another one", 0, errors.New("no buffer space"))
	pass("the one that succeeds", 2)
	c.queue.SetSlice(triggeredAt("web", ago(5*time.Second)))
	pass("a failure before a deletion", 0, errors.New("no buffer space"))
	c.queue.SetSlice(triggeredAt("other", ago(5*time.Second)))
	c.queue.DeleteSlice(types.NamespacedName{Namespace: "default", Name: "web-1"})
	c.queue.DeleteSlice(types.NamespacedName{Namespace: "default", Name: "other-1"})
	pass("slices that are deleted", 0)

	for i := range 3 * maxTriggers {
		c.queue.SetSlice(triggeredAt("web", ago(time.Duration(60-i)*time.Second)))
	}
	pass("more changes than are kept", maxTriggers)
}

// TestTriggerTimesOfFamilies: those of a family without a table are nobody's.
func TestTriggerTimesOfFamilies(t *testing.T) {
	c, _, registry := measured(nil, &bytes.Buffer{})
	six := triggeredAt("web", time.Now().Add(time.Second))
	six.AddressType = discoveryv1.AddressTypeIPv6
	six.Endpoints[0].Addresses[0] = "fd00:128::1"
	c.queue.SetSlice(six)
	c.queue.Synced()
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := values(t, registry); got["kubeproxy_network_programming_duration_seconds IPv4"] != 0 || len(c.triggers) != 0 {
		t.Errorf("%v, %d kept", got, len(c.triggers))
	}
}

// TestPending: changes are pending until they are programmed, also while passes
// fail, and every change is counted once.
func TestPending(t *testing.T) {
	c, f, registry := measured(nil, &bytes.Buffer{})
	check := func(name string, services, slices, allServices, allSlices float64) {
		t.Helper()
		got := values(t, registry)
		for i, key := range []string{"service_changes_pending", "endpoint_changes_pending", "service_changes_total", "endpoint_changes_total"} {
			if want := [...]float64{services, slices, allServices, allSlices}[i]; got["kubeproxy_sync_proxy_rules_"+key] != want {
				t.Errorf("%s: %s is %v, want %v", name, key, got["kubeproxy_sync_proxy_rules_"+key], want)
			}
		}
	}
	pass := func(fails ...error) {
		t.Helper()
		f.fail = fails
		if err := c.pass(context.Background()); (err != nil) != (len(fails) > 0) {
			t.Fatal(err)
		}
	}
	check("nothing", 0, 0, 0, 0)
	c.queue.SetService(wanting("web", "10.96.0.1", 1))
	c.queue.SetService(wanting("web", "10.96.0.2", 1))
	c.queue.SetSlice(elsewhere("web"))
	orphan := elsewhere("none")
	orphan.Labels = nil
	c.queue.SetSlice(orphan)
	pass()
	check("taken before the source has synced", 1, 2, 2, 1)
	c.queue.Synced()
	pass(errors.New("no buffer space"))
	check("the pass failed", 1, 2, 2, 1)
	c.queue.DeleteService(types.NamespacedName{Namespace: "default", Name: "other"})
	check("another one behind it", 2, 2, 3, 1)
	pass()
	check("programmed", 0, 0, 3, 1)
	c.queue.DeleteSlice(types.NamespacedName{Namespace: "default", Name: "web-1"})
	check("a deletion", 0, 1, 3, 2)
}

// stamp reads a time of day; -1 if it is not there.
func stamp(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "kubeproxy_sync_proxy_rules_"+name+"_timestamp_seconds" {
			return family.Metric[0].GetGauge().GetValue()
		}
	}
	return -1
}

// TestTimestamps: what was queued later than the last good pass is not programmed.
func TestTimestamps(t *testing.T) {
	c, f, registry := measured(nil, &bytes.Buffer{})
	check := func(name string, behind bool) {
		t.Helper()
		queued, done := stamp(t, registry, "last_queued"), stamp(t, registry, "last")
		if queued < float64(time.Now().Add(-time.Minute).Unix()) || (queued > done) != behind {
			t.Errorf("%s: queued %f, last pass %f", name, queued, done)
		}
	}
	check("a new process", true)
	if at := stamp(t, registry, "last"); at != -1 {
		t.Errorf("there has been no pass yet, and its time is %f", at)
	}
	c.queue.Synced()
	f.fail = []error{errors.New("no buffer space")}
	if err := c.pass(context.Background()); err == nil {
		t.Fatal("no error")
	}
	check("failed", true)
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	check("done", false)
	c.queue.SetSlice(elsewhere("web"))
	check("queued", true)
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	check("there was nothing to write", false)
	c.rumours.hear(nft.Foreign{Touched: []nft.Touched{{Family: nft.IPv4, Constant: "the table"}}})
	c.heed(context.Background())
	check("somebody changed the table", true)
}

// TestSyncFamilies: a pass counts for the family whose table it touched.
func TestSyncFamilies(t *testing.T) {
	config := testConfig()
	registry := prometheus.NewPedanticRegistry()
	config.Metrics = registry
	f := newFake()
	c := New(config, f)
	check := func(name string, want ...string) {
		t.Helper()
		var got []string
		for metric, n := range values(t, registry) {
			if strings.HasPrefix(metric, "kubeproxy_sync_") && !strings.HasSuffix(metric, "_total") {
				got = append(got, strings.Repeat(strings.TrimPrefix(metric, "kubeproxy_sync_")+"; ", int(n)))
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	once := func(what string) string { return what + "; " }
	c.queue.Synced()
	if err := c.pass(context.Background()); err != nil {
		t.Fatal(err)
	}
	check("start",
		once("full_proxy_rules_duration_seconds IPv4"), once("full_proxy_rules_duration_seconds IPv6"),
		once("proxy_rules_duration_seconds IPv4"), once("proxy_rules_duration_seconds IPv6"))
	c.queue.SetService(wanting("web", "10.96.0.1", 1))
	f.fail = []error{errors.New("no buffer space")}
	if err := c.pass(context.Background()); err == nil {
		t.Fatal("no error")
	}
	check("a Service of IPv4 that cannot be written",
		once("full_proxy_rules_duration_seconds IPv4"), once("full_proxy_rules_duration_seconds IPv6"),
		once("partial_proxy_rules_duration_seconds IPv4"),
		strings.Repeat("proxy_rules_duration_seconds IPv4; ", 2), once("proxy_rules_duration_seconds IPv6"),
		once("proxy_rules_nftables_sync_failures_total IPv4"),
		once("proxy_rules_service_changes_pending"))
}

// TestInitialised: what has labels is there before it counts.
func TestInitialised(t *testing.T) {
	_, _, registry := measured(nil, &bytes.Buffer{})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, family := range families {
		there[family.GetName()] = true
	}
	for _, name := range []string{
		"sync_proxy_rules_duration_seconds", "sync_full_proxy_rules_duration_seconds", "sync_partial_proxy_rules_duration_seconds",
		"network_programming_duration_seconds", "sync_proxy_rules_last_queued_timestamp_seconds",
		"sync_proxy_rules_nftables_sync_failures_total", "sync_proxy_rules_no_local_endpoints_total",
		"sync_proxy_rules_endpoint_changes_pending", "sync_proxy_rules_endpoint_changes_total",
		"sync_proxy_rules_service_changes_pending", "sync_proxy_rules_service_changes_total",
	} {
		if !there["kubeproxy_"+name] {
			t.Errorf("kubeproxy_%s is not there", name)
		}
	}
}
