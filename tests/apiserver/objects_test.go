// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"fmt"
	"net/http"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	servicesPath = "/api/v1/namespaces/default/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
	nodesPath    = "/api/v1/nodes"
	rbacPath     = "/apis/rbac.authorization.k8s.io/v1"
)

// service is a Service in the API: what a client needs to know of it.
type service struct {
	name     string
	v4, v6   netip.Addr
	nodePort uint16
}

// at is where a family of the Service listens, on TCP and UDP alike.
func (s service) at(v6 bool) netip.AddrPort {
	if v6 {
		return netip.AddrPortFrom(s.v6, 80)
	}
	return netip.AddrPortFrom(s.v4, 80)
}

// newService is a dual-stack Service of type NodePort with port 80 of TCP and UDP.
func newService(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type:           corev1.ServiceTypeNodePort,
			IPFamilyPolicy: new(corev1.IPFamilyPolicyRequireDualStack),
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80, TargetPort: intstr.FromInt32(8080)},
			},
		},
	}
}

// newSlice is an EndpointSlice of a Service whose endpoints are these pods.
func newSlice(service string, v6 bool, pods ...int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   sliceName(service, v6),
			Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   newEndpoints(v6, pods...),
		Ports: []discoveryv1.EndpointPort{
			{Name: new("tcp"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))},
			{Name: new("udp"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(8080))},
		},
	}
	if v6 {
		slice.AddressType = discoveryv1.AddressTypeIPv6
	}
	return slice
}

func sliceName(service string, v6 bool) string {
	if v6 {
		return service + "-v6"
	}
	return service + "-v4"
}

func newEndpoints(v6 bool, pods ...int) []discoveryv1.Endpoint {
	endpoints := []discoveryv1.Endpoint{}
	for _, pod := range pods {
		endpoints = append(endpoints, discoveryv1.Endpoint{
			Addresses:  []string{podAddr(pod, v6).String()},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			NodeName:   new(nodeName),
		})
	}
	return endpoints
}

// createService creates a Service and its slices, which have these pods.
func (s *site) createService(name string, pods ...int) service {
	s.t.Helper()
	var made corev1.Service
	s.do(http.MethodPost, servicesPath, newService(name), &made)
	s.do(http.MethodPost, slicesPath, newSlice(name, false, pods...), nil)
	s.do(http.MethodPost, slicesPath, newSlice(name, true, pods...), nil)
	return service{
		name:     name,
		v4:       netip.MustParseAddr(made.Spec.ClusterIPs[0]),
		v6:       netip.MustParseAddr(made.Spec.ClusterIPs[1]),
		nodePort: uint16(made.Spec.Ports[0].NodePort),
	}
}

// deleteService deletes a Service and its slices.
func (s *site) deleteService(name string) {
	s.t.Helper()
	s.do(http.MethodDelete, servicesPath+"/"+name, nil, nil)
	for _, v6 := range []bool{false, true} {
		s.do(http.MethodDelete, slicesPath+"/"+sliceName(name, v6), nil, nil)
	}
}

// setEndpoints replaces the endpoints of one of a Service's slices.
func (s *site) setEndpoints(service string, v6 bool, pods ...int) {
	s.t.Helper()
	s.do(http.MethodPatch, slicesPath+"/"+sliceName(service, v6),
		map[string]any{"endpoints": newEndpoints(v6, pods...)}, nil)
}

// label sets a label of a Service; nil removes it.
func (s *site) label(service, key string, value any) {
	s.t.Helper()
	s.do(http.MethodPatch, servicesPath+"/"+service,
		map[string]any{"metadata": map[string]any{"labels": map[string]any{key: value}}}, nil)
}

// createNode creates the node's Node object with these addresses.
func (s *site) createNode(addrs ...netip.Addr) {
	s.t.Helper()
	s.do(http.MethodPost, nodesPath, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName},
		Status:     corev1.NodeStatus{Addresses: nodeAddresses(addrs)},
	}, nil)
}

// setNodeAddrs replaces the addresses of the Node object.
func (s *site) setNodeAddrs(addrs ...netip.Addr) {
	s.t.Helper()
	s.do(http.MethodPatch, nodesPath+"/"+nodeName+"/status",
		map[string]any{"status": map[string]any{"addresses": nodeAddresses(addrs)}}, nil)
}

func nodeAddresses(addrs []netip.Addr) (all []corev1.NodeAddress) {
	for _, a := range addrs {
		all = append(all, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	return all
}

// permissions are what kube-nft needs of each resource, and no more.
var permissions = map[string]rbacv1.PolicyRule{
	"services":       {APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list", "watch"}},
	"endpointslices": {APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
	"nodes":          {APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}},
	"servicecidrs":   {APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: []string{"list", "watch"}},
	"events":         {APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
}

// allow gives the user the permissions for nodes and these resources.
func (s *site) allow(resources ...string) {
	s.t.Helper()
	for _, resource := range append([]string{"nodes"}, resources...) {
		s.grant(resource)
	}
}

// grant gives the user the permission for a resource. The server has learned of it, by a
// watch of its own, when this returns: who asks then is not refused.
func (s *site) grant(resource string) {
	s.t.Helper()
	name, rule := "kube-nft-"+resource, permissions[resource]
	s.do(http.MethodPost, rbacPath+"/clusterroles", &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules:      []rbacv1.PolicyRule{rule},
	}, nil)
	s.do(http.MethodPost, rbacPath+"/clusterrolebindings", &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "kube-nft"}},
	}, nil)
	s.Eventually(soon, func() error {
		allowed, err := s.api.May(s.t.Context(), user, rule.Verbs[0], rule.APIGroups[0], resource)
		if err == nil && !allowed {
			err = fmt.Errorf("%s of %s is not allowed yet", rule.Verbs[0], resource)
		}
		return err
	})
}

// do asks the API as Admin and ends the test if it refuses.
func (s *site) do(method, path string, in, out any) {
	s.t.Helper()
	s.Must(s.api.Do(s.t.Context(), method, path, in, out))
}
