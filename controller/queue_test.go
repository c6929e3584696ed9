// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
)

// TestQueueIsNotShared: what the loop has taken, the source never touches again,
// not even when there was nothing to take. The race detector judges.
func TestQueueIsNotShared(t *testing.T) {
	c := New(testConfig(), newFake())
	load := &source.Synthetic{Services: 200, Endpoints: 1}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range load.Services {
			c.queue.SetService(load.Service(i))
			for _, s := range load.Slices(i) {
				c.queue.SetSlice(s)
			}
		}
		c.queue.Synced()
	})
	for synced := false; !synced; {
		var pending changes
		pending, synced = c.queue.take()
		c.merge(pending)
	}
	wg.Wait()
	pending, _ := c.queue.take()
	c.merge(pending)
	if n := len(c.state.Services()); n != load.Services {
		t.Errorf("%d Services came through, want %d", n, load.Services)
	}
}

// TestWarnings: a warning is logged when it begins to hold and when it changes,
// and of a Service that is gone nothing is remembered.
func TestWarnings(t *testing.T) {
	var log bytes.Buffer
	q := newQueue("node", slog.New(slog.NewTextHandler(&log, nil)))
	set := func(ranges ...string) {
		q.SetService(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, ClusterIP: "10.96.0.10", LoadBalancerSourceRanges: ranges},
			Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
				Ingress: []corev1.LoadBalancerIngress{{IP: "192.0.2.80"}, {IP: "2001:db8::80"}}}},
		})
	}
	gone := func() { q.DeleteService(types.NamespacedName{Namespace: "default", Name: "web"}) }
	steps := []struct {
		name string
		do   func()
		want string // of the warning; none
	}{
		{"nothing to say", func() { set() }, ""},
		{"a doubt", func() { set("2001:db8::/32") }, "no IPv4 range"},
		{"the same again", func() { set("2001:db8::/32", "2001:db8:1::/48") }, ""},
		{"another one", func() { set("10.0.0.0/8") }, "no IPv6 range"},
		{"all is well", func() { set() }, ""},
		{"back", func() { set("10.0.0.0/8") }, "no IPv6 range"},
		{"gone", gone, ""},
		{"made anew", func() { set("10.0.0.0/8") }, "no IPv6 range"},
	}
	for _, step := range steps {
		log.Reset()
		step.do()
		var doubts []string
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "may not do what is meant") {
				doubts = append(doubts, line)
			}
		}
		if step.want == "" && len(doubts) == 0 || len(doubts) == 1 && step.want != "" && strings.Contains(doubts[0], step.want) {
			continue
		}
		t.Errorf("%s: logged %q, want one line with %q", step.name, doubts, step.want)
	}
	gone()
	if len(q.said) > 0 {
		t.Errorf("still remembered: %v", q.said)
	}
}

// TestServiceCIDRs: of each object the last word counts, and what is invalid in
// one is said and left out.
func TestServiceCIDRs(t *testing.T) {
	var log bytes.Buffer
	config := testConfig()
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c := New(config, newFake())
	set := func(name string, cidrs ...string) {
		c.queue.SetServiceCIDR(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: cidrs}})
	}
	check := func(want ...string) {
		t.Helper()
		pending, _ := c.queue.take()
		c.merge(pending)
		var got []string
		for _, f := range []model.Family{model.IPv4, model.IPv6} {
			for _, p := range c.state.ServiceCIDRs.Of(f) {
				got = append(got, p.String())
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	}
	set("kubernetes", "10.96.0.0/16", "fd00:96::/112")
	set("more", "10.97.0.0/16")
	set("more", "10.96.0.0/16", "10.98.0.0/16")
	set("short", "10.99.0.0/16")
	c.queue.DeleteServiceCIDR("short")
	check("10.96.0.0/16", "10.98.0.0/16", "fd00:96::/112")
	c.queue.DeleteServiceCIDR("kubernetes")
	check("10.96.0.0/16", "10.98.0.0/16")
	c.queue.DeleteServiceCIDR("more")
	set("more", "10.97.0.0/16", "nonsense")
	check("10.97.0.0/16")
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), "spec.cidrs[1]") {
		t.Errorf("want one line about spec.cidrs[1]:\n%s", &log)
	}
}
