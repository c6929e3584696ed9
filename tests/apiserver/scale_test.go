// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// Size of TestScale.
const (
	scaleServices  = 1000
	scaleEndpoints = 10
)

// TestScale loads many Services through the API while kube-nft runs, and starts
// it on them. It runs alone.
func TestScale(t *testing.T) {
	s := newSite(t)
	s.serve()
	s.createNode(nodeAddrs...)
	agent := s.runAgent()
	agent.awaitProgrammed()
	t.Logf("resident with nothing but Service kubernetes: %s", agent.resident())

	began := time.Now()
	s.Must(s.load())
	t.Logf("wrote %d Services of %d endpoints to the API in %v", scaleServices, scaleEndpoints, time.Since(began).Round(time.Millisecond))
	last := s.createService("last", 1, 2)
	s.answers(s.client, "tcp", last.at(true), "pod-1", "pod-2") // whose slice comes last of all
	t.Logf("resident after that: %s, %d commits", agent.resident(), len(agent.logged("committed")))

	stop := s.allTraffic(last)
	m := s.startMonitor()
	agent.end(syscall.SIGTERM)
	agent = s.runAgent()
	t.Logf("restarted: adopted everything %v after its start; resident %s", agent.awaitProgrammed().Round(time.Millisecond), agent.resident())
	agent.end(syscall.SIGTERM)
	stop()
	if events := m.Events(); len(events) > 0 {
		t.Errorf("a restart changed the tables, %d times: %s …", len(events), events[0])
	}

	s.Run(s.node, "nft", "delete", "table", "ip", "kube-nft", ";", "delete", "table", "ip6", "kube-nft")
	agent = s.runAgent()
	t.Logf("cold: programmed everything %v after its start; resident %s", agent.awaitProgrammed().Round(time.Millisecond), agent.resident())
	s.answers(s.client, "tcp", last.at(true), "pod-1", "pod-2")
}

// load creates the Services, several at a time.
func (s *site) load() error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make(chan error, 8)
	for range cap(errs) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= scaleServices {
					return
				}
				if err := s.createLarge(i); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

// createLarge creates an IPv4 Service with a TCP port and many endpoints that do
// not exist.
func (s *site) createLarge(i int) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	name := fmt.Sprintf("service-%04d", i)
	object := newService(name)
	object.Spec.Type = corev1.ServiceTypeClusterIP
	object.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicySingleStack)
	object.Spec.Ports = object.Spec.Ports[:1]
	if err := s.api.Do(ctx, http.MethodPost, servicesPath, object, nil); err != nil {
		return err
	}
	slice := newSlice(name, false)
	slice.Ports = slice.Ports[:1]
	addr := netip.AddrFrom4([4]byte{10, 244, byte(16 + i/25), byte(i % 25 * scaleEndpoints)})
	for range scaleEndpoints {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{addr.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true)},
			NodeName:   new("elsewhere"),
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: fmt.Sprintf("%s-5d8f9c7b6-%s", name, addr)},
		})
		addr = addr.Next()
	}
	return s.api.Do(ctx, http.MethodPost, slicesPath, slice, nil)
}
