// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/source"
)

const cidrsPath = "/apis/networking.k8s.io/v1/servicecidrs"

// TestServiceCIDRs: the server's own ServiceCIDR is delivered, and what comes and
// goes beside it.
func TestServiceCIDRs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sink := s.runSource()
	primary := []string{"10.96.0.0/16", "fd00:10:96::/112"}
	sink.await(map[string][]string{"kubernetes": primary})
	s.createServiceCIDR("more", "10.97.0.0/16")
	sink.await(map[string][]string{"kubernetes": primary, "more": {"10.97.0.0/16"}})
	s.createServiceCIDR("other", "fd00:10:97::/112", "10.98.0.0/16")
	s.do(http.MethodDelete, cidrsPath+"/more", nil, nil)
	sink.await(map[string][]string{"kubernetes": primary, "other": {"fd00:10:97::/112", "10.98.0.0/16"}})
}

// TestServiceCIDRsForbidden has permissions that leave ServiceCIDRs out: all else
// works as ever, one line says what to do, and to do it is enough.
func TestServiceCIDRsForbidden(t *testing.T) {
	t.Parallel()
	s := newBareSite(t)
	s.serve()
	s.allow("services", "endpointslices")
	web := s.createService("web", 1)
	agent := s.runAgent()
	agent.awaitProgrammed()
	s.answers(s.client, "tcp", web.at(false), "pod-1")
	s.Eventually(soon, func() error {
		if s.count("servicecidrs", func(r request) bool { return r.code == http.StatusForbidden }) < 4 {
			return errors.New("ServiceCIDRs have not been asked for twice")
		}
		return nil
	})
	const lists = "Kubernetes API lists no ServiceCIDRs"
	if lines := agent.logged(lists); len(lines) != 1 || lines[0]["mend"] != "allow this user to list and watch servicecidrs.networking.k8s.io" {
		t.Errorf("want one line with the mend: %v", lines)
	}
	if lines := agent.logged(refused); len(lines) > 0 {
		t.Errorf("said twice: %v", lines)
	}
	s.grant("servicecidrs")
	agent.await(patience, "Kubernetes API lists ServiceCIDRs now")
	later := s.createService("later", 2)
	s.answers(s.client, "tcp", later.at(true), "pod-2")
}

func (s *site) createServiceCIDR(name string, cidrs ...string) {
	s.t.Helper()
	s.do(http.MethodPost, cidrsPath, &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: cidrs},
	}, nil)
}

// runSource follows the API as kube-nft does, until the test ends.
func (s *site) runSource() *cidrSink {
	s.t.Helper()
	config, err := source.ClientConfig(source.ClientOptions{Kubeconfig: s.api.Kubeconfig(user.Name)})
	s.Must(err)
	config.Dial = s.node.DialContext
	client, err := source.NewClientFor(config)
	s.Must(err)
	sink := &cidrSink{s: s, cidrs: make(map[string][]string)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.API(client, source.APIOptions{NodeName: nodeName}).Run(ctx, sink) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	return sink
}

// cidrSink is a source.Sink that remembers ServiceCIDRs.
type cidrSink struct {
	s     *site
	mu    sync.Mutex
	cidrs map[string][]string
}

// await waits until there are these ServiceCIDRs and no others.
func (c *cidrSink) await(want map[string][]string) {
	c.s.t.Helper()
	c.s.Eventually(soon, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !maps.EqualFunc(c.cidrs, want, slices.Equal) {
			return fmt.Errorf("ServiceCIDRs are %v, want %v", c.cidrs, want)
		}
		return nil
	})
}

func (c *cidrSink) SetServiceCIDR(in *networkingv1.ServiceCIDR) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cidrs[in.Name] = in.Spec.CIDRs
}

func (c *cidrSink) DeleteServiceCIDR(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.cidrs, name)
}

func (*cidrSink) SetService(*corev1.Service)          {}
func (*cidrSink) DeleteService(types.NamespacedName)  {}
func (*cidrSink) SetSlice(*discoveryv1.EndpointSlice) {}
func (*cidrSink) DeleteSlice(types.NamespacedName)    {}
func (*cidrSink) SetNode(*corev1.Node)                {}
func (*cidrSink) DeleteNode()                         {}
func (*cidrSink) Synced()                             {}
