// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
