// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

// sizes are numbers of Services, of tenEndpoints each.
var sizes = []int{1_000, 10_000, 30_000}

const tenEndpoints = 10

func eachSize(b *testing.B, f func(b *testing.B, services int)) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("%dx%d", n, tenEndpoints), func(b *testing.B) {
			b.ReportAllocs()
			f(b, n)
		})
	}
}

// benchService is a Service and its endpoints.
type benchService struct {
	service *model.Service
	chosen  model.Selection
}

func benchServices(n int) []benchService {
	all := make([]benchService, n)
	for i := range all {
		all[i].service = &model.Service{
			Name:       types.NamespacedName{Namespace: "default", Name: fmt.Sprintf("svc-%d", i)},
			ClusterIPs: [model.Families]netip.Addr{model.IPv4: benchAddr(10, 64, i)},
			Ports:      []model.ServicePort{{Name: "http", Protocol: model.TCP, Port: 80}},
		}
		for e := range tenEndpoints {
			all[i].chosen.Cluster = append(all[i].chosen.Cluster, netip.AddrPortFrom(benchAddr(10, 128, i*tenEndpoints+e), 8080))
		}
	}
	return all
}

// benchAddr is the n-th address from a.b.0.0 on.
func benchAddr(a, b byte, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{a, b + byte(n>>16), byte(n >> 8), byte(n)})
}

func (s benchService) set(t *Table) {
	t.Set(s.service, func(*model.ServicePort) model.Selection { return s.chosen })
}

func benchTable(all []benchService) *Table {
	t := NewTable(nft.IPv4)
	t.Reserve(len(all))
	for _, s := range all {
		s.set(t)
	}
	t.Settle()
	return t
}

// BenchmarkCompileAll makes the whole table's elements from nothing.
func BenchmarkCompileAll(b *testing.B) {
	eachSize(b, func(b *testing.B, n int) {
		all := benchServices(n)
		for b.Loop() {
			elements := 0
			for range benchTable(all).All() {
				elements++
			}
			if elements < n*tenEndpoints {
				b.Fatal(elements)
			}
		}
	})
}

// BenchmarkCompileEndpointChange compiles one Service that loses an endpoint or gets
// it back, among others.
func BenchmarkCompileEndpointChange(b *testing.B) {
	eachSize(b, func(b *testing.B, n int) {
		all := benchServices(n)
		t := benchTable(all)
		full := all[n/2]
		fewer := full
		fewer.chosen.Cluster = slices.Clone(full.chosen.Cluster)[1:]
		for i := 0; b.Loop(); i++ {
			if i%2 == 0 {
				fewer.set(t)
			} else {
				full.set(t)
			}
			if d, _ := t.TakeDelta(); d.Empty() {
				b.Fatal("nothing changed")
			}
		}
	})
}

// BenchmarkCompileService compiles one Service that comes or goes, among others.
func BenchmarkCompileService(b *testing.B) {
	eachSize(b, func(b *testing.B, n int) {
		all := benchServices(n + 1)
		t := benchTable(all[:n])
		for i := 0; b.Loop(); i++ {
			if i%2 == 0 {
				all[n].set(t)
			} else {
				t.Delete(all[n].service.Name)
			}
			if d, _ := t.TakeDelta(); d.Size() < tenEndpoints {
				b.Fatal("nothing changed")
			}
		}
	})
}
