// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func ptr[T any](v T) *T { return &v }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func web(change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "web-1"},
		Spec: corev1.ServiceSpec{
			Type:       corev1.ServiceTypeNodePort,
			ClusterIP:  "10.96.0.10",
			ClusterIPs: []string{"10.96.0.10", "fd00:96::10"},
			Ports:      []corev1.ServicePort{{Name: "http", Port: 80, NodePort: 30080}},
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

// TestFromService: what is read of a Service, and what is left out, such as an
// external policy where nothing is external (A3.7).
func TestFromService(t *testing.T) {
	base := func(change func(*Service)) *Service {
		s := &Service{
			Name:       types.NamespacedName{Namespace: "default", Name: "web"},
			UID:        "web-1",
			ClusterIPs: [Families]netip.Addr{addr("10.96.0.10"), addr("fd00:96::10")},
			Ports:      []ServicePort{{Name: "http", Protocol: TCP, Port: 80, NodePort: 30080}},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	proxy, vip := corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP
	cases := []struct {
		name     string
		in       func(*corev1.Service)
		want     *Service
		problems []string
	}{
		{"dual stack", nil, base(nil), nil},
		{"old object", func(s *corev1.Service) { s.Spec.ClusterIPs = nil },
			base(func(s *Service) { s.ClusterIPs[IPv6] = netip.Addr{} }), nil},
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, nil, nil},
		{"no address yet", func(s *corev1.Service) { s.Spec.ClusterIP = "" }, nil, nil},
		{"external name", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, nil, nil},
		{"another proxy's", func(s *corev1.Service) { s.Labels = map[string]string{LabelServiceProxyName: ""} }, nil, nil},
		{"stale node port", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP },
			base(func(s *Service) { s.Ports[0].NodePort = 0 }), nil},
		{"external IPs", func(s *corev1.Service) {
			s.Spec.ExternalIPs = []string{"192.0.2.1", " ", " 192.0.2.2", "192.0.2.1", "nonsense", "0.0.0.0", "fe80::1%eth0"}
		}, base(func(s *Service) { s.ExternalIPs = []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")} }),
			[]string{`spec.externalIPs[4]: "nonsense"`, "spec.externalIPs[5]", "spec.externalIPs[6]"}},
		{"load balancer", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeClusterIP // its status counts, not its type
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
				{IP: "192.0.2.80"}, {IP: "2001:db8::80", IPMode: &vip}, {IP: "192.0.2.81", IPMode: &proxy}, {Hostname: "lb.example"}}
		}, base(func(s *Service) {
			s.Ports[0].NodePort = 0
			s.LoadBalancerIPs = []netip.Addr{addr("192.0.2.80"), addr("2001:db8::80")}
		}), nil},
		{"mapped address", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"::ffff:192.0.2.1"} },
			base(func(s *Service) { s.ExternalIPs = []netip.Addr{addr("192.0.2.1")} }), nil},
		{"policies Local", func(s *corev1.Service) {
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.Spec.InternalTrafficPolicy = ptr(corev1.ServiceInternalTrafficPolicyLocal)
		}, base(func(s *Service) { s.ExternalLocal, s.InternalLocal = true, true }), nil},
		{"stale external policy", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeClusterIP
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		}, base(func(s *Service) { s.Ports[0].NodePort = 0 }), nil},
		{"external policy of external IPs", func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeClusterIP
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			s.Spec.ExternalIPs = []string{"192.0.2.1"}
		}, base(func(s *Service) {
			s.Ports[0].NodePort, s.ExternalLocal, s.ExternalIPs = 0, true, []netip.Addr{addr("192.0.2.1")}
		}), nil},
		{"two of a family", func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"10.96.0.10", "10.96.0.11"} },
			base(func(s *Service) { s.ClusterIPs[IPv6] = netip.Addr{} }), []string{"spec.clusterIPs[1]"}},
		{"ports", func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{
				{Name: "a", Port: 0}, {Name: "b", Port: 53, Protocol: "UDP"}, {Name: "c", Port: 53, Protocol: "ICMP"},
				{Name: "d", Port: 53, Protocol: "UDP"}, {Name: "e", Port: 53, NodePort: 70000}, {Name: "f", Port: 9, Protocol: "SCTP"}}
		}, base(func(s *Service) {
			s.Ports = []ServicePort{{"b", UDP, 53, 0}, {"e", TCP, 53, 0}, {"f", SCTP, 9, 0}}
		}), []string{"spec.ports[0].port: 0", "spec.ports[2].protocol", "spec.ports[3].port: 53 is there twice", "spec.ports[4].nodePort: 70000"}},
		{"node port twice", func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 80, NodePort: 30080}, {Name: "b", Port: 81, NodePort: 30080},
				{Name: "c", Port: 80, NodePort: 30080, Protocol: "UDP"}, {Name: "d", Port: 82}, {Name: "e", Port: 83}}
		}, base(func(s *Service) {
			s.Ports = []ServicePort{{"a", TCP, 80, 30080}, {"b", TCP, 81, 0}, {"c", UDP, 80, 30080}, {"d", TCP, 82, 0}, {"e", TCP, 83, 0}}
		}), []string{"spec.ports[1].nodePort: 30080 is there twice"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := FromService(web(tc.in), "")
			if d := cmp.Diff(tc.want, got, cmpopts.EquateComparable(netip.Addr{}, Hints{})); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			checkProblems(t, err, tc.problems)
		})
	}
}

func checkProblems(t *testing.T, err error, want []string) {
	t.Helper()
	if len(want) == 0 {
		if err != nil {
			t.Errorf("error %v", err)
		}
		return
	}
	if err == nil {
		t.Fatalf("no error, want %q", want)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d problems, want %d: %q", len(lines), len(want), lines)
	}
	for _, w := range want {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, w) }) {
			t.Errorf("no problem %q in %q", w, lines)
		}
	}
}

func slice(name string, change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.128.0.1", "10.128.0.99"}, NodeName: ptr("here")}},
	}
	if change != nil {
		change(s)
	}
	return s
}

func TestFromSlice(t *testing.T) {
	one := func(change func(*Slice)) *Slice {
		s := &Slice{
			Name:      types.NamespacedName{Namespace: "default", Name: "web-1"},
			Service:   types.NamespacedName{Namespace: "default", Name: "web"},
			Ports:     []SlicePort{{"http", TCP, 8080}},
			Endpoints: []Endpoint{{Addr: addr("10.128.0.1"), Ready: true, Serving: true, Local: true}},
		}
		if change != nil {
			change(s)
		}
		return s
	}
	cases := []struct {
		name     string
		in       func(*discoveryv1.EndpointSlice)
		want     *Slice
		problems []string
	}{
		{"first address only", nil, one(nil), nil},
		{"no Service", func(s *discoveryv1.EndpointSlice) { s.Labels = nil }, nil, nil},
		{"trigger time", func(s *discoveryv1.EndpointSlice) {
			s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "2026-01-02T03:04:05.6Z"}
		}, one(func(s *Slice) { s.Triggered = time.Date(2026, 1, 2, 3, 4, 5, 6e8, time.UTC) }), nil},
		{"no trigger time", func(s *discoveryv1.EndpointSlice) {
			s.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "yesterday"}
		}, one(nil), []string{`metadata.annotations[endpoints.kubernetes.io/last-change-trigger-time]: "yesterday" is not a time`}},
		{"names", func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN }, nil, nil},
		{"no node", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].NodeName = nil },
			one(func(s *Slice) { s.Endpoints[0].Local = false }), nil},
		{"conditions", func(s *discoveryv1.EndpointSlice) {
			s.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}
		}, one(func(s *Slice) { s.Endpoints[0].Ready, s.Endpoints[0].Terminating = false, true }), nil},
		{"ports without name or number are none", func(s *discoveryv1.EndpointSlice) {
			s.Ports = []discoveryv1.EndpointPort{{Port: ptr(int32(1))}, {Name: ptr("x")}, {Name: ptr(""), Port: ptr(int32(0))},
				{Name: ptr("dns"), Port: ptr(int32(53)), Protocol: ptr(corev1.ProtocolUDP)}}
		}, one(func(s *Slice) { s.Ports = []SlicePort{{"dns", UDP, 53}} }), nil},
		{"invalid", func(s *discoveryv1.EndpointSlice) {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: ptr("a"), Port: ptr(int32(70000))},
				discoveryv1.EndpointPort{Name: ptr("b"), Port: ptr(int32(1)), Protocol: ptr(corev1.Protocol("X"))})
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{}, discoveryv1.Endpoint{Addresses: []string{"fd00::1"}}, discoveryv1.Endpoint{Addresses: []string{"?"}})
		}, one(nil), []string{"ports[1].port: 70000", "ports[2].protocol", "endpoints[1].addresses: no address", "endpoints[2].addresses[0]: fd00::1", `endpoints[3].addresses[0]: "?"`}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got, err := FromSlice(slice("web-1", tc.in), "here")
			if d := cmp.Diff(tc.want, got, cmpopts.EquateComparable(netip.Addr{}, Hints{})); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			checkProblems(t, err, tc.problems)
		})
	}
}

func TestSelect(t *testing.T) {
	const ready, down, leaving, gone = "ready", "down", "leaving", "gone"
	make := func(kinds ...string) []PortEndpoint {
		var all []PortEndpoint
		for i, k := range kinds {
			all = append(all, PortEndpoint{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80),
				Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Ready: k == ready, Serving: k == ready || k == leaving, Terminating: k == leaving || k == gone, Local: i%2 == 0}})
		}
		return all
	}
	cases := []struct {
		name           string
		in             []PortEndpoint
		cluster, local int
	}{
		{"none", nil, 0, 0},
		{"ready", make(ready, ready, ready), 3, 2},
		{"ready before terminating", make(ready, leaving, leaving), 1, 1},
		{"terminating as a last resort", make(leaving, leaving, gone, down), 2, 1},
		{"terminating here, ready elsewhere", make(leaving, ready), 1, 1},
		{"nobody serves", make(down, gone), 0, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := Select(tc.in, "")
			if len(s.Cluster) != tc.cluster || len(s.Local) != tc.local {
				t.Errorf("Select = %v", s)
			}
		})
	}
	notReadyButPublished := make(ready)
	notReadyButPublished[0].Terminating = true // publishNotReadyAddresses
	if s := Select(notReadyButPublished, ""); len(s.Cluster) != 1 {
		t.Errorf("a ready endpoint is left out because it terminates")
	}
}

func TestMergedSlices(t *testing.T) {
	s := NewState()
	set := func(name string, change func(*discoveryv1.EndpointSlice)) {
		in, err := FromSlice(slice(name, change), "here")
		if err != nil {
			t.Fatal(err)
		}
		s.SetSlice(in)
	}
	service := types.NamespacedName{Namespace: "default", Name: "web"}
	port := &ServicePort{Name: "http", Protocol: TCP, Port: 80}
	leaving := discoveryv1.EndpointConditions{Ready: ptr(false), Terminating: ptr(true)}
	set("b", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions = leaving })
	set("a", nil)
	set("c", func(s *discoveryv1.EndpointSlice) {
		s.Endpoints[0].Addresses = []string{"10.128.0.2"}
		s.Ports[0].Port = ptr(int32(9090))
	})
	set("other", func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "other" })
	check := func(want ...string) {
		t.Helper()
		var got []string
		for _, e := range s.entry(service).Endpoints(nil, port, IPv4) {
			got = append(got, e.Addr.String()+" "+e.state(true).String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("endpoints %q, want %q", got, want)
		}
	}
	check("10.128.0.1:8080 ready", "10.128.0.2:9090 ready")
	if e := s.entry(service).Endpoints(nil, port, IPv6); len(e) != 0 {
		t.Errorf("IPv6: %v", e)
	}
	s.TakeDirty()
	set("a", func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "other" })
	check("10.128.0.1:8080 terminating, and others are ready", "10.128.0.2:9090 ready")
	if n := len(s.TakeDirty()); n != 2 {
		t.Errorf("a slice that changes its Service touches %d Services", n)
	}
	s.DeleteSlice(types.NamespacedName{Namespace: "default", Name: "b"})
	s.DeleteSlice(types.NamespacedName{Namespace: "default", Name: "b"})
	check("10.128.0.2:9090 ready")
}

func TestHints(t *testing.T) {
	// Each word is an endpoint: its zone hints, then / and its node hints.
	parse := func(words ...string) []PortEndpoint {
		var all []PortEndpoint
		for i, w := range words {
			in := &discoveryv1.Endpoint{Addresses: []string{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String()}, Hints: &discoveryv1.EndpointHints{}}
			zones, nodes, _ := strings.Cut(w, "/")
			for _, z := range strings.FieldsFunc(zones, func(r rune) bool { return r == '+' }) {
				in.Hints.ForZones = append(in.Hints.ForZones, discoveryv1.ForZone{Name: z})
			}
			if nodes != "" {
				in.Hints.ForNodes = []discoveryv1.ForNode{{Name: nodes}}
			}
			e, err := endpoint(in, IPv4, "here")
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, PortEndpoint{netip.AddrPortFrom(e.Addr, 80), e})
		}
		return all
	}
	cases := []struct {
		name string
		in   []PortEndpoint
		zone string
		want string
	}{
		{"no hints", parse("", "", ""), "a", "012"},
		{"zone", parse("a", "b", "b+a"), "a", "02"},
		{"zone of nobody", parse("a", "b"), "c", "01"},
		{"no zone known", parse("a", "b"), "", "01"},
		{"one without a hint", parse("a", "b", ""), "a", "012"},
		{"part of a name", parse("aa", "a"), "a", "1"},
		{"node before zone", parse("a/here", "a/there", "b/there"), "a", "0"},
		{"no endpoint for this node", parse("a/there", "b/there"), "a", "0"},
		{"one without a node hint", parse("a/here", "b", "a"), "a", "02"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			for _, a := range Select(tc.in, tc.zone).Cluster {
				got += string(rune('0' + a.Addr().As4()[3]))
			}
			if got != tc.want {
				t.Errorf("endpoints %s, want %s", got, tc.want)
			}
		})
	}
	notReady := parse("a", "b")
	notReady[1].Ready = false
	if s := Select(notReady, "b"); len(s.Cluster) != 1 || s.Cluster[0] != notReady[0].Addr {
		t.Errorf("hints of an endpoint that is not ready count: %v", s)
	}
}

// TestProxyName: a Service is served by the proxy that it names, or by the one that
// has no name (KEP-2447).
func TestProxyName(t *testing.T) {
	for _, tt := range []struct {
		proxy  string
		labels map[string]string
		ours   bool
	}{
		{"", nil, true},
		{"", map[string]string{LabelServiceProxyName: "kube-nft"}, false},
		{"", map[string]string{LabelServiceProxyName: ""}, false},
		{"kube-nft", nil, false},
		{"kube-nft", map[string]string{LabelServiceProxyName: "other"}, false},
		{"kube-nft", map[string]string{LabelServiceProxyName: "kube-nft"}, true},
	} {
		s, err := FromService(web(func(s *corev1.Service) { s.Labels = tt.labels }), tt.proxy)
		if err != nil || (s != nil) != tt.ours {
			t.Errorf("proxy %q, labels %v: %v, %v", tt.proxy, tt.labels, s, err)
		}
	}
}
