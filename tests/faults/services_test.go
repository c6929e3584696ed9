// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"net/netip"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// targetPort is where pods serve.
const targetPort = 8080

// spec is a Service with TCP and UDP on port 80, and its endpoints.
type spec struct {
	name     string
	n        int // its ClusterIPs, by number
	v6       bool
	nodePort int32 // 0 = none
	sticky   int32 // seconds; 0 = no affinity
	local    bool  // the external policy Local
	pods     []int // numbers for podAddr
}

func (s spec) clusterIP() [2]netip.Addr {
	return pair(fmt.Sprintf("10.96.%d.%d", 16+s.n>>8, s.n&0xff), fmt.Sprintf("fd00:10:96::%x", 0x1000+s.n))
}

// at is the address of the Service in a family.
func (s spec) at(f int) netip.AddrPort { return netip.AddrPortFrom(s.clusterIP()[f], 80) }

// families lists those of the Service.
func (s spec) families() []int { return families[:1+btoi(s.v6)] }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func sliceName(service string, f int) string { return service + [...]string{"-v4", "-v6"}[f] }

// objects are the Service and a slice for each family.
func (s spec) objects() []runtime.Object {
	all := []runtime.Object{s.service()}
	for _, f := range s.families() {
		all = append(all, s.slice(f))
	}
	return all
}

func (s spec) service() *corev1.Service {
	svc := &corev1.Service{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: s.name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, SessionAffinity: corev1.ServiceAffinityNone},
	}
	spec := &svc.Spec
	policy := corev1.IPFamilyPolicySingleStack
	if s.v6 {
		policy = corev1.IPFamilyPolicyRequireDualStack
	}
	spec.IPFamilyPolicy = &policy
	for _, f := range s.families() {
		spec.ClusterIPs = append(spec.ClusterIPs, s.clusterIP()[f].String())
		spec.IPFamilies = append(spec.IPFamilies, [...]corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}[f])
	}
	spec.ClusterIP = spec.ClusterIPs[0]
	for _, p := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		spec.Ports = append(spec.Ports, corev1.ServicePort{Name: string(p[0]|0x20) + "80", Protocol: p, Port: 80,
			TargetPort: intstr.FromInt32(targetPort), NodePort: s.nodePort})
	}
	if s.nodePort != 0 {
		spec.Type, spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyCluster
		if s.local {
			spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}
	}
	if s.sticky != 0 {
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(s.sticky)}}
	}
	return svc
}

func (s spec) slice(f int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: sliceName(s.name, f),
			Labels: map[string]string{discoveryv1.LabelServiceName: s.name}},
		AddressType: [...]discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}[f],
		Endpoints:   []discoveryv1.Endpoint{},
	}
	for _, p := range s.service().Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: new(p.Name), Protocol: new(p.Protocol), Port: new(int32(targetPort))})
	}
	for _, pod := range s.pods {
		node := nodeName
		if pod > realPod(2) {
			node = "node-" + strconv.Itoa(pod%7)
		}
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{podAddr(pod)[f].String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
		})
	}
	return slice
}

// steady is a Service that does not change while faults happen: its clients must not
// notice any.
var steady = spec{name: "steady", n: 1, v6: true, nodePort: 30080, pods: []int{realPod(0), realPod(1), realPod(2)}}

// sticky is steady with session affinity.
var sticky = spec{name: "sticky", n: 2, v6: true, sticky: 10800, pods: steady.pods}

// moving is a Service that changes while faults happen, in step i.
func moving(i int) spec {
	return spec{name: "moving", n: 3, v6: true, nodePort: 30081, pods: [][]int{
		{realPod(0)}, {realPod(1)}, {realPod(1), realPod(2)}, {realPod(0), realPod(1), realPod(2)},
	}[i%4]}
}

// crowd are Services that nobody asks, so that a table is not a toy.
func crowd(n int) (all []runtime.Object) {
	for i := range n {
		pods := make([]int, 1+i%5)
		for k := range pods {
			pods[k] = 300 + (7*i+k)%20000
		}
		all = append(all, spec{name: fmt.Sprint("crowd-", i), n: 16 + i, v6: i%3 > 0, sticky: int32(i%10/9) * 600, pods: pods}.objects()...)
	}
	return all
}

// nodeObject is the node that kube-nft runs on.
func nodeObject() *corev1.Node {
	node := &corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: nodeName},
	}
	for _, a := range nodeAddr {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return node
}
