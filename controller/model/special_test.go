// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestSpecialAddresses: what no object may have a packet sent to or taken from. Cluster
// IPs and load balancers' addresses may be link-local: some clouds have such.
func TestSpecialAddresses(t *testing.T) {
	for _, tt := range []struct {
		addr               string
		endpoint, frontend bool
	}{
		{"10.0.0.1", true, true},
		{"2001:db8::1", true, true},
		{"127.0.0.1", false, false},
		{"127.9.9.9", false, false},
		{"::1", false, false},
		{"::ffff:127.0.0.1", false, false},
		{"169.254.169.254", false, true},
		{"fe80::1", false, true},
		{"224.0.0.1", false, false},
		{"ff02::1", false, false},
		{"0.0.0.0", false, false},
		{"::", false, false},
	} {
		t.Run(tt.addr, func(t *testing.T) {
			got, err := FromSlice(slice("web-1", func(s *discoveryv1.EndpointSlice) {
				if FamilyOf(addr(tt.addr).Unmap()) == IPv6 {
					s.AddressType = discoveryv1.AddressTypeIPv6
				}
				s.Endpoints[0].Addresses = []string{tt.addr}
			}), "here")
			if (len(got.Endpoints) == 1) != tt.endpoint || (err == nil) != tt.endpoint {
				t.Errorf("endpoints %v, %v", got.Endpoints, err)
			}
			s, err := FromService(web(func(s *corev1.Service) {
				s.Spec.ExternalIPs = []string{tt.addr}
				s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: tt.addr}}
			}), "")
			if (len(s.ExternalIPs) == 1) != tt.endpoint || (len(s.LoadBalancerIPs) == 1) != tt.frontend || (err == nil) != tt.endpoint {
				t.Errorf("external IPs %v, load balancer IPs %v, %v", s.ExternalIPs, s.LoadBalancerIPs, err)
			}
			s, _ = FromService(web(func(s *corev1.Service) { s.Spec.ClusterIPs = []string{tt.addr} }), "")
			if (s.ClusterIPs != [Families]netip.Addr{}) != tt.frontend {
				t.Errorf("cluster IPs %v", s.ClusterIPs)
			}
		})
	}
}

// TestNames: what is no name does not become one in the kernel, nor a line in a log.
func TestNames(t *testing.T) {
	for _, name := range []string{"", "Web", "a/b", "a b", "a\"; drop", "a\nlevel=ERROR msg=forged", "\x1b[2Ja", "ä", "-a", "a-", "a.b", strings.Repeat("a", 64), "a\x00"} {
		for field, change := range map[string]func(*corev1.Service){
			"metadata.name":      func(s *corev1.Service) { s.Name = name },
			"metadata.namespace": func(s *corev1.Service) { s.Namespace = name },
		} {
			s, err := FromService(web(change), "")
			if s != nil || err == nil || !strings.HasPrefix(err.Error(), field+": ") || strings.ContainsAny(err.Error(), "\n\x1b\x00") {
				t.Errorf("%s %q: %v, %q", field, name, s, err)
			}
		}
		if name == "" {
			continue // which is a port's name
		}
		s, err := FromService(web(func(s *corev1.Service) { s.Spec.Ports[0].Name = name }), "")
		if s == nil || len(s.Ports) != 0 || err == nil || !strings.HasPrefix(err.Error(), "spec.ports[0].name: ") {
			t.Errorf("port %q: %v, %v", name, s, err)
		}
	}
	longest := strings.Repeat("a", 63)
	s, err := FromService(web(func(s *corev1.Service) { s.Name, s.Namespace, s.Spec.Ports[0].Name = longest, "0", "1-2" }), "")
	if err != nil || len(s.Ports) != 1 {
		t.Errorf("%v, %v", s, err)
	}
}

// TestManyPorts: an object with as many ports as there is room for is read in no time,
// though each is compared with all before it. It is the thread's own time that counts,
// whatever else the machine does.
func TestManyPorts(t *testing.T) {
	const many = 60_000
	in := web(func(s *corev1.Service) {
		s.Spec.Ports = nil
		for i := range many {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Port: int32(1 + i), NodePort: int32(1 + i)})
		}
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	began := threadTime(t)
	s, err := FromService(in, "")
	if took := threadTime(t) - began; err != nil || len(s.Ports) != many || took > time.Second {
		t.Errorf("%d ports, %v, after %v", len(s.Ports), err, took)
	}
}

// threadTime is how long this thread has run.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
