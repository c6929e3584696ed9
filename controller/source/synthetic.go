// SPDX-License-Identifier: Apache-2.0

package source

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Synthetic makes up a cluster, for benchmarks and tests. The same values make
// the same objects. Service 0 is default/kubernetes and Service 1 is
// kube-system/kube-dns, as in a real one; the others are default/svc-N.
//
// A fraction, from 0 to 1, is the part of the Services that have a property;
// they are spread evenly.
type Synthetic struct {
	Services  int // how many
	Endpoints int // of each Service
	Ports     int // of each Service but the first two; 0 = 1
	Nodes     int // that endpoints are spread over, node-0 first; 0 = 100
	DualStack bool

	NodePorts     float64 // fraction: type NodePort, as far as port numbers go
	LoadBalancers float64 // fraction: type LoadBalancer with an ingress address
	ExternalIPs   float64 // fraction: an external IP
	Affinity      float64 // fraction: sessionAffinity ClientIP
	LocalPolicy   float64 // fraction: traffic policies Local, external if it applies

	Churn float64 // endpoint changes a second, once all is delivered
	Seed  uint64  // of the churn
}

// Where addresses come from. The ranges are apart from each other. The upper
// half of the pods' range is for endpoints that churn brings in.
var (
	podRange4      = netip.MustParsePrefix("10.128.0.0/9")
	podRange6      = netip.MustParsePrefix("fd00:10:128::/64")
	clusterRange4  = netip.MustParsePrefix("10.64.0.0/10")
	clusterRange6  = netip.MustParsePrefix("fd00:10:64::/64")
	externalRange4 = netip.MustParsePrefix("100.64.0.0/10")
	externalRange6 = netip.MustParsePrefix("fd00:100:64::/64")
	balancerRange4 = netip.MustParsePrefix("172.24.0.0/13")
	balancerRange6 = netip.MustParsePrefix("fd00:172:24::/64")
	nodeRange4     = netip.MustParsePrefix("172.16.0.0/14")
	nodeRange6     = netip.MustParsePrefix("fd00:172:16::/64")
)

const (
	maxPods       = 1 << 22 // half of podRange4
	maxBalancers  = 1 << 19 // balancerRange4
	firstNodePort = 30000
	sliceSize     = 100 // endpoints; what Kubernetes puts into one
)

// syntheticEpoch is when the oldest Service was created; each is a second
// younger than the one before.
var syntheticEpoch = time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC)

// Validate returns what is wrong with s, all of it.
func (s *Synthetic) Validate() error {
	var errs []error
	if s.Services < 0 || s.Endpoints < 0 || s.Ports < 0 || s.Nodes < 0 || s.Churn < 0 {
		errs = append(errs, errors.New("a count is negative"))
	}
	if s.Services*s.Endpoints > maxPods {
		errs = append(errs, fmt.Errorf("%d endpoints: more than %d addresses", s.Services*s.Endpoints, maxPods))
	}
	if s.Services > maxBalancers || s.Nodes > 1<<16 {
		errs = append(errs, fmt.Errorf("more than %d services or %d nodes", maxBalancers, 1<<16))
	}
	for _, f := range []float64{s.NodePorts, s.LoadBalancers, s.ExternalIPs, s.Affinity, s.LocalPolicy} {
		if !(f >= 0 && f <= 1) {
			errs = append(errs, fmt.Errorf("the fraction %v is not from 0 to 1", f))
		}
	}
	return errors.Join(errs...)
}

// ServiceName returns the name of Service i.
func (s *Synthetic) ServiceName(i int) types.NamespacedName {
	switch i {
	case 0:
		return types.NamespacedName{Namespace: "default", Name: "kubernetes"}
	case 1:
		return types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"}
	default:
		return types.NamespacedName{Namespace: "default", Name: "svc-" + strconv.Itoa(i)}
	}
}

// ServiceCIDR returns the one that every cluster IP is from.
func (s *Synthetic) ServiceCIDR() *networkingv1.ServiceCIDR {
	c := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", CreationTimestamp: metav1.NewTime(syntheticEpoch)}}
	for _, v6 := range s.families() {
		r := clusterRange4
		if v6 {
			r = clusterRange6
		}
		c.Spec.CIDRs = append(c.Spec.CIDRs, r.String())
	}
	return c
}

// Service returns Service i, from 0. Every call makes a new object.
func (s *Synthetic) Service(i int) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: s.meta(s.ServiceName(i), "service", i),
		Spec: corev1.ServiceSpec{
			Type:                  corev1.ServiceTypeClusterIP,
			Ports:                 s.servicePorts(i),
			SessionAffinity:       corev1.ServiceAffinityNone,
			InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyCluster),
		},
	}
	spec := &svc.Spec
	for _, v6 := range s.families() {
		spec.ClusterIPs = append(spec.ClusterIPs, nth(clusterRange4, clusterRange6, v6, clusterIPOrdinal(i)).String())
		spec.IPFamilies = append(spec.IPFamilies, ipFamily(v6))
	}
	spec.ClusterIP = spec.ClusterIPs[0]
	if i < 2 {
		return svc
	}
	s.expose(svc, i)
	if _, ok := pick(i, s.Affinity); ok {
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{
			TimeoutSeconds: new(corev1.DefaultClientIPServiceAffinitySeconds)}}
	}
	if _, ok := pick(i, s.LocalPolicy); ok {
		spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
		if spec.ExternalTrafficPolicy != "" {
			spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}
	}
	return svc
}

// expose gives Service i the addresses and ports by which the world reaches it.
func (s *Synthetic) expose(svc *corev1.Service, i int) {
	spec := &svc.Spec
	if n, ok := pick(i, s.NodePorts); ok {
		first := firstNodePort + n*len(spec.Ports)
		if first+len(spec.Ports) <= 1<<16 {
			spec.Type = corev1.ServiceTypeNodePort
			for p := range spec.Ports {
				spec.Ports[p].NodePort = int32(first + p)
			}
		}
	}
	_, balanced := pick(i, s.LoadBalancers)
	_, external := pick(i, s.ExternalIPs)
	for _, v6 := range s.families() {
		if balanced {
			spec.Type = corev1.ServiceTypeLoadBalancer
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{
				IP:     nth(balancerRange4, balancerRange6, v6, i).String(),
				IPMode: new(corev1.LoadBalancerIPModeVIP),
			})
		}
		if external {
			spec.ExternalIPs = append(spec.ExternalIPs, nth(externalRange4, externalRange6, v6, i+1).String())
		}
	}
	if external || spec.Type != corev1.ServiceTypeClusterIP {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
}

// clusterIPOrdinal puts the first two Services where clusters have them.
func clusterIPOrdinal(i int) int {
	switch i {
	case 0:
		return 1
	case 1:
		return 10
	default:
		return 16 + i
	}
}

func (s *Synthetic) servicePorts(i int) []corev1.ServicePort {
	switch i {
	case 0:
		return []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443}}
	case 1:
		return []corev1.ServicePort{
			{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53},
			{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53},
		}
	}
	ports := make([]corev1.ServicePort, cmp.Or(s.Ports, 1))
	for p := range ports {
		ports[p] = corev1.ServicePort{Name: "p" + strconv.Itoa(p), Protocol: corev1.ProtocolTCP, Port: int32(80 + p)}
	}
	return ports
}

// endpointPort is where a Service port leads.
func endpointPort(p corev1.ServicePort) int32 {
	switch p.Port {
	case 443:
		return 6443
	case 53:
		return 53
	default:
		return 8000 + p.Port
	}
}

// Slices returns the EndpointSlices of Service i as they are before any churn,
// none if there are no endpoints. Every call makes new objects.
func (s *Synthetic) Slices(i int) []*discoveryv1.EndpointSlice {
	var slices []*discoveryv1.EndpointSlice
	for k := range (s.Endpoints + sliceSize - 1) / sliceSize {
		for _, v6 := range s.families() {
			slices = append(slices, s.slice(i, k, v6, nil))
		}
	}
	return slices
}

// slice makes slice k of Service i in one family. The pod in each of its places
// is the one that was there first, unless moved says another; -1 is none.
func (s *Synthetic) slice(i, k int, v6 bool, moved map[int]int) *discoveryv1.EndpointSlice {
	name := s.ServiceName(i)
	family := "v4"
	if v6 {
		family = "v6"
	}
	labels := map[string]string{discoveryv1.LabelServiceName: name.Name}
	name.Name = fmt.Sprintf("%s-%s-%d", name.Name, family, k)
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  s.meta(name, "slice", i),
		AddressType: discoveryv1.AddressType(ipFamily(v6)),
	}
	slice.Labels = labels
	for _, p := range s.servicePorts(i) {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{
			Name: new(p.Name), Protocol: new(p.Protocol), Port: new(endpointPort(p))})
	}
	for place := k * sliceSize; place < min((k+1)*sliceSize, s.Endpoints); place++ {
		pod, ok := moved[place]
		if !ok {
			pod = i*s.Endpoints + place
		}
		if pod >= 0 {
			slice.Endpoints = append(slice.Endpoints, s.endpoint(pod, v6))
		}
	}
	return slice
}

func (s *Synthetic) endpoint(pod int, v6 bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses:  []string{nth(podRange4, podRange6, v6, pod+1).String()},
		NodeName:   new("node-" + strconv.Itoa(pod%cmp.Or(s.Nodes, 100))),
		Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
	}
}

// Node returns node-i.
func (s *Synthetic) Node(i int) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   "node-" + strconv.Itoa(i),
		Labels: map[string]string{corev1.LabelTopologyZone: "zone-" + strconv.Itoa(i%3)},
	}}
	for _, v6 := range s.families() {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{
			Type: corev1.NodeInternalIP, Address: nth(nodeRange4, nodeRange6, v6, i+2).String()})
		pods := podRange4
		if v6 {
			pods = podRange6
		}
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, pods.String())
	}
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	return node
}

func (s *Synthetic) meta(name types.NamespacedName, what string, i int) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:         name.Namespace,
		Name:              name.Name,
		UID:               types.UID(what + "/" + name.String()),
		CreationTimestamp: metav1.NewTime(syntheticEpoch.Add(time.Duration(i) * time.Second)),
	}
}

// families lists the families in use, false for IPv4 and true for IPv6.
func (s *Synthetic) families() []bool {
	if s.DualStack {
		return []bool{false, true}
	}
	return []bool{false}
}

func ipFamily(v6 bool) corev1.IPFamily {
	if v6 {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// pick reports whether i is one of the given fraction of all numbers, and how
// many are before it.
func pick(i int, fraction float64) (before int, ok bool) {
	before = int(float64(i) * fraction)
	return before, int(float64(i+1)*fraction) > before
}

// nth returns the nth address of one of two ranges. The number goes into the
// low 32 bits; callers keep it within the IPv4 range.
func nth(v4, v6 netip.Prefix, useV6 bool, n int) netip.Addr {
	if useV6 {
		a := v6.Addr().As16()
		a[12], a[13], a[14], a[15] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
		return netip.AddrFrom16(a)
	}
	a := v4.Addr().As4()
	base := int(a[0])<<24 | int(a[1])<<16 | int(a[2])<<8 | int(a[3])
	base += n
	return netip.AddrFrom4([4]byte{byte(base >> 24), byte(base >> 16), byte(base >> 8), byte(base)})
}
