// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
)

// said records events as "uid reason about".
type said struct{ events, notes []string }

func (s *said) Warn(svc *model.Service, reason, about, note string) {
	s.events = append(s.events, strings.Join([]string{string(svc.UID), reason, about}, " "))
	s.notes = append(s.notes, note)
}

// TestEventsOfServices: who loses an address or leaves a family open is told, when
// it begins and then now and again for as long as it holds.
func TestEventsOfServices(t *testing.T) {
	c, _, _ := measured(nil, &bytes.Buffer{})
	var got said
	c.config.Events, c.queue.events = &got, &got
	c.queue.Synced()
	open := func(ranges ...string) func() {
		s := wanting("open", "10.96.0.9", 9)
		s.Spec.Type, s.Spec.ExternalIPs, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, nil, ranges
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.80"}}
		return func() { c.queue.SetService(s) }
	}
	set := func(name, clusterIP string, created int64) func() {
		return func() { c.queue.SetService(wanting(name, clusterIP, created)) }
	}
	gone := func(name string) func() {
		return func() { c.queue.DeleteService(types.NamespacedName{Namespace: "default", Name: name}) }
	}
	const (
		lost   = "uid-of-second FrontendConflict 192.0.2.1 default/first"
		doubts = "uid-of-open SourceRangesOpen spec.loadBalancerSourceRanges has no IPv4 range, so everybody is let in to 192.0.2.80: add one to keep others out"
	)
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{"alone", set("first", "10.96.0.1", 1), nil},
		{"two ports of one address", set("second", "10.96.0.2", 2), []string{lost, lost}},
		{"the same", set("second", "10.96.0.2", 2), nil},
		{"a doubt", open("2001:db8::/32"), []string{doubts}},
		{"still so", c.warnAgain, []string{doubts, lost, lost}},
		{"the winner goes", gone("first"), nil},
		{"no doubt", open(), nil},
		{"nothing holds", c.warnAgain, nil},
	}
	for _, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			got = said{}
			step.do()
			if err := c.pass(context.Background()); err != nil {
				t.Fatal(err)
			}
			if slices.Sort(got.events); !slices.Equal(got.events, step.want) {
				t.Errorf("%q, want %q", got.events, step.want)
			}
			const note = "192.0.2.1:80/tcp is served for Service default/first, as its external IP, and not for this Service: give one of the two another address"
			if slices.Contains(step.want, lost) && !slices.Contains(got.notes, note) {
				t.Errorf("notes %q, want %q", got.notes, note)
			}
		})
	}
}
