// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDefaultService(t *testing.T) {
	t.Parallel()
	cluster := new(corev1.ServiceInternalTrafficPolicyCluster)
	tests := []struct {
		name, spec string
		want       corev1.ServiceSpec
	}{
		{"nothing said", "{}", corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster}},
		{"address", "{clusterIP: fd00::1, ports: [{port: 80}]}", corev1.ServiceSpec{
			Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster, ClusterIP: "fd00::1",
			ClusterIPs: []string{"fd00::1"}, IPFamilies: []corev1.IPFamily{"IPv6"}, Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP"}}}},
		{"addresses", "{clusterIPs: [10.0.0.1, 'fd00::1']}", corev1.ServiceSpec{
			Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster, ClusterIP: "10.0.0.1",
			ClusterIPs: []string{"10.0.0.1", "fd00::1"}, IPFamilies: []corev1.IPFamily{"IPv4", "IPv6"}}},
		{"bad address", "{clusterIP: ten}", corev1.ServiceSpec{
			Type: "ClusterIP", SessionAffinity: "None", InternalTrafficPolicy: cluster, ClusterIP: "ten", ClusterIPs: []string{"ten"}}},
		{"node port", "{type: NodePort}", corev1.ServiceSpec{
			Type: "NodePort", SessionAffinity: "None", InternalTrafficPolicy: cluster, ExternalTrafficPolicy: "Cluster"}},
		{"external address", "{externalIPs: [192.0.2.1]}", corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "None",
			InternalTrafficPolicy: cluster, ExternalIPs: []string{"192.0.2.1"}, ExternalTrafficPolicy: "Cluster"}},
		{"affinity", "{sessionAffinity: ClientIP}", corev1.ServiceSpec{Type: "ClusterIP", SessionAffinity: "ClientIP",
			InternalTrafficPolicy: cluster,
			SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(10800))}}}},
		{"external name", "{type: ExternalName, externalName: example.com}", corev1.ServiceSpec{Type: "ExternalName", SessionAffinity: "None"}},
		{"all said", "{type: LoadBalancer, sessionAffinity: None, internalTrafficPolicy: Local, externalTrafficPolicy: Local, ipFamilies: [IPv4]}",
			corev1.ServiceSpec{Type: "LoadBalancer", SessionAffinity: "None", InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyLocal),
				ExternalTrafficPolicy: "Local", IPFamilies: []corev1.IPFamily{"IPv4"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := parseManifest("f", []byte("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: "+tt.spec+"}"), nil)
			if len(m.errs) > 0 {
				t.Fatal(errors.Join(m.errs...))
			}
			want := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Spec: tt.want}
			if diff := cmp.Diff(want, m.objects[0].object); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestDefaultSlice(t *testing.T) {
	t.Parallel()
	got := &discoveryv1.EndpointSlice{
		Ports:     []discoveryv1.EndpointPort{{}, {Name: new("a"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(1))}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}},
	}
	defaultSlice(got)
	want := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default"},
		Ports: []discoveryv1.EndpointPort{{Name: new(""), Protocol: new(corev1.ProtocolTCP)},
			{Name: new("a"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(1))}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}, // no conditions made up
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
