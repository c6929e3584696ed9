// SPDX-License-Identifier: Apache-2.0

package source

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

var created = metav1.NewTime(time.Date(2024, time.May, 6, 7, 8, 9, 0, time.UTC))

// full reads an object of testdata, in which every field is set.
func full(t *testing.T, name string) runtime.Object {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	o, _, err := strict.Decode(data, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestStripService(t *testing.T) {
	t.Parallel()
	got := full(t, "service.yaml").(*corev1.Service)
	StripService(got)
	want := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", UID: "6f0c1b1e-1111-4222-8333-444455556666", CreationTimestamp: created,
			Labels:      map[string]string{"service.kubernetes.io/service-proxy-name": "other"},
			Annotations: map[string]string{"endpoints.kubernetes.io/last-change-trigger-time": "2024-05-06T07:08:10Z"},
		},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeLoadBalancer,
			ClusterIP:  "10.96.0.10",
			ClusterIPs: []string{"10.96.0.10", "fd00:96::a"},
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol},
			Ports: []corev1.ServicePort{
				{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080},
				{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: 30053},
			},
			ExternalIPs:              []string{"192.0.2.1"},
			ExternalTrafficPolicy:    corev1.ServiceExternalTrafficPolicyLocal,
			InternalTrafficPolicy:    new(corev1.ServiceInternalTrafficPolicyLocal),
			SessionAffinity:          corev1.ServiceAffinityClientIP,
			SessionAffinityConfig:    &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(600))}},
			LoadBalancerSourceRanges: []string{"10.0.0.0/8"},
			HealthCheckNodePort:      32000,
		},
		Status: corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
			Ingress: []corev1.LoadBalancerIngress{{IP: "198.51.100.1", IPMode: new(corev1.LoadBalancerIPModeVIP)}}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestStripSlice(t *testing.T) {
	t.Parallel()
	got := full(t, "slice.yaml").(*discoveryv1.EndpointSlice)
	StripSlice(got)
	want := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web-abc", UID: "6f0c1b1e-1111-4222-8333-444455557777", CreationTimestamp: created,
			Labels:      map[string]string{"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""},
			Annotations: map[string]string{"endpoints.kubernetes.io/last-change-trigger-time": "2024-05-06T07:08:10Z"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
		Endpoints: []discoveryv1.Endpoint{
			{
				Addresses:  []string{"10.128.0.1"},
				Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
				NodeName:   new("node-0"),
				Hints: &discoveryv1.EndpointHints{
					ForZones: []discoveryv1.ForZone{{Name: "zone-a"}}, ForNodes: []discoveryv1.ForNode{{Name: "node-0"}}},
			},
			{Addresses: []string{"10.128.0.3"}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestStripNode(t *testing.T) {
	t.Parallel()
	got := full(t, "node.yaml").(*corev1.Node)
	StripNode(got)
	want := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-0", DeletionTimestamp: &created, Labels: map[string]string{"topology.kubernetes.io/zone": "zone-a"}},
		Spec: corev1.NodeSpec{PodCIDR: "10.128.0.0/24", PodCIDRs: []string{"10.128.0.0/24", "fd00:128::/64"},
			Taints: []corev1.Taint{{Key: "a", Value: "b", Effect: corev1.TaintEffectNoSchedule}}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "172.18.0.2"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestStripServiceCIDR(t *testing.T) {
	t.Parallel()
	got := full(t, "servicecidr.yaml").(*networkingv1.ServiceCIDR)
	StripServiceCIDR(got)
	want := &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", UID: "6f0c1b1e-1111-4222-8333-444455556666", CreationTimestamp: created},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd00:10:96::/112"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestEncodeIsLossless checks that what Dir remembers is all there is.
func TestEncodeIsLossless(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"service.yaml", "slice.yaml", "node.yaml", "servicecidr.yaml"} {
		o := full(t, name)
		strip(o)
		sink := newRecorder()
		set(sink, keyOf(o), encode(o))
		var got runtime.Object
		switch o.(type) {
		case *corev1.Service:
			got = sink.services[keyOf(o).NamespacedName]
		case *discoveryv1.EndpointSlice:
			got = sink.slices[keyOf(o).NamespacedName]
		case *networkingv1.ServiceCIDR:
			got = sink.cidrs[keyOf(o).Name]
		default:
			got = sink.node
		}
		if diff := cmp.Diff(o, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}
