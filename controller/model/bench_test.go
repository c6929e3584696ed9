// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"testing"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
)

// BenchmarkFromSlice is what an EndpointSlice costs that comes from the API.
func BenchmarkFromSlice(b *testing.B) {
	for _, endpoints := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("endpoints=%d", endpoints), func(b *testing.B) {
			load := source.Synthetic{Services: 3, Endpoints: endpoints}
			slice := load.Slices(2)[0]
			b.ReportAllocs()
			for b.Loop() {
				if s, err := model.FromSlice(slice, "node-0"); err != nil || len(s.Endpoints) != endpoints {
					b.Fatal(s, err)
				}
			}
		})
	}
}

// BenchmarkFromService is what a Service costs that comes from the API.
func BenchmarkFromService(b *testing.B) {
	for _, bc := range []struct {
		name string
		load source.Synthetic
	}{
		{"ports=1", source.Synthetic{Services: 3}},
		{"ports=5/load-balancer", source.Synthetic{Services: 3, Ports: 5, NodePorts: 1, LoadBalancers: 1, ExternalIPs: 1}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			service := bc.load.Service(2)
			b.ReportAllocs()
			for b.Loop() {
				if s, err := model.FromService(service, ""); err != nil || len(s.Ports) != len(service.Spec.Ports) {
					b.Fatal(s, err)
				}
			}
		})
	}
}
