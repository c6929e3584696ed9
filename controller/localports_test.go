// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// told records what LocalPorts is told.
type told []string

func (t *told) Set(s *model.Service, ports []model.NodePort) {
	line := "set " + s.Name.String()
	for _, p := range ports {
		line += fmt.Sprintf(" %d with %d", p.Number, len(p.Endpoints))
	}
	*t = append(*t, line)
}

func (t *told) Delete(name types.NamespacedName) { *t = append(*t, "delete "+name.String()) }

// TestLocalPorts: LocalPorts is told of the Services that a pass looked at, once
// they are programmed.
func TestLocalPorts(t *testing.T) {
	f := newFake()
	config := testConfig()
	delete(config.Options, nft.IPv6)
	var got told
	config.LocalPorts = &got
	c := New(config, f)
	web := oneService.Service(1).DeepCopy()
	web.Spec.Type, web.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	name := types.NamespacedName{Namespace: web.Namespace, Name: web.Name}
	plain := oneService.ServiceName(0)
	steps := []struct {
		name  string
		event func()
		fail  error
		want  told
	}{
		{"not synced", func() { deliver(c.queue, 0) }, nil, nil},
		{"synced", c.queue.Synced, nil, told{"set " + plain.String()}},
		{"nothing", func() {}, nil, nil},
		{"a node port", func() { c.queue.SetService(web) }, nil, told{"set " + name.String() + " 30080 with 0"}},
		{"its endpoints", func() { c.queue.SetSlice(oneService.Slices(1)[0]) }, nil, told{"set " + name.String() + " 30080 with 2"}},
		{"refused by the kernel", func() { c.queue.DeleteSlice(sliceName(1)) }, errors.New("no buffer space"), nil},
		{"then programmed", func() {}, nil, told{"set " + name.String() + " 30080 with 0"}},
		{"gone", func() { c.queue.DeleteService(name) }, nil, told{"delete " + name.String()}},
		{"back, with another", func() { c.queue.SetService(web); deliver(c.queue, 0) }, nil,
			told{"set " + plain.String(), "set " + name.String() + " 30080 with 0"}},
	}
	for _, step := range steps {
		got = nil
		step.event()
		if step.fail != nil {
			f.fail = []error{step.fail}
		}
		if err := c.pass(context.Background()); !errors.Is(err, step.fail) {
			t.Fatalf("%s: %v", step.name, err)
		}
		slices.Sort(got)
		slices.Sort(step.want)
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
	}
}

func sliceName(i int) types.NamespacedName {
	s := oneService.Slices(i)[0]
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}
