// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestHugeObjects: a Service with 100,000 endpoints, and one with half as many ports as an
// object may have, are programmed whole, in time that is in proportion, and a change of
// another Service costs what it always does.
func TestHugeObjects(t *testing.T) {
	if testing.Short() {
		t.Skip("large")
	}
	for _, tt := range []struct {
		name             string
		ports, endpoints int
		affinity         corev1.ServiceAffinity
	}{
		{"endpoints", 1, 100_000, corev1.ServiceAffinityNone},
		{"ports", 10_000, 2, corev1.ServiceAffinityNone},
		{"ports with affinity", 2_000, 2, corev1.ServiceAffinityClientIP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lab := netlab.NewT(t)
			conn := openKernel(t, lab.Namespace("node"))
			c := New(testConfig(), conn)
			small := &source.Synthetic{Services: 10, Endpoints: 3}
			for i := range small.Services {
				c.queue.SetService(small.Service(i))
				for _, s := range small.Slices(i) {
					c.queue.SetSlice(s)
				}
			}
			c.queue.Synced()
			c.mustPass(t)
			steps := map[string]func(){
				"it comes":     func() { deliverHuge(c, huge(tt.ports, tt.affinity), tt.endpoints) },
				"one endpoint": func() { c.queue.SetSlice(hugeSlice(tt.ports, 0, min(tt.endpoints, sliceSize)-1)) },
				"another Service": func() {
					c.queue.DeleteService(small.ServiceName(5))
				},
				"it goes": func() { c.queue.DeleteService(hugeName) },
			}
			for _, name := range []string{"it comes", "one endpoint", "another Service", "it goes"} {
				began := time.Now()
				steps[name]()
				done := c.mustPass(t)
				took := time.Since(began)
				t.Logf("%s: %v, %d elements added, %d deleted", name, took.Round(time.Millisecond), done.Added, done.Deleted)
				if took > 20*time.Second || name == "another Service" && took > time.Second {
					t.Errorf("%s takes %v", name, took)
				}
				check(t, c, conn)
			}
		})
	}
}

// sliceSize is how many endpoints the API lets be in a slice.
const sliceSize = 1000

var hugeName = types.NamespacedName{Namespace: "default", Name: "huge"}

func huge(ports int, affinity corev1.ServiceAffinity) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: hugeName.Namespace, Name: hugeName.Name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.200.1", SessionAffinity: affinity},
	}
	for i := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(1 + i)})
	}
	return s
}

func deliverHuge(c *Controller, s *corev1.Service, endpoints int) {
	c.queue.SetService(s)
	for i := 0; i*sliceSize < endpoints; i++ {
		c.queue.SetSlice(hugeSlice(len(s.Spec.Ports), i, min(sliceSize, endpoints-i*sliceSize)))
	}
}

// hugeSlice is the slice of a number, with the ports of the Service.
func hugeSlice(ports, number, endpoints int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: hugeName.Namespace, Name: fmt.Sprint("huge-", number),
			Labels: map[string]string{discoveryv1.LabelServiceName: hugeName.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
	}
	for i := range ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(fmt.Sprint("p", i)), Port: new(int32(8000 + i))})
	}
	first := netip.MustParseAddr("10.128.0.1").As4()
	for i := range endpoints {
		n := number*sliceSize + i
		first[1], first[2], first[3] = byte(128+n>>16), byte(n>>8), byte(n)
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{netip.AddrFrom4(first).String()}})
	}
	return s
}
