// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// recorder is a Sink that remembers what it was told, in order and in sum.
type recorder struct {
	mu       sync.Mutex
	told     []string
	services map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName]*discoveryv1.EndpointSlice
	cidrs    map[string]*networkingv1.ServiceCIDR
	node     *corev1.Node
	synced   int
}

func newRecorder() *recorder {
	return &recorder{
		services: map[types.NamespacedName]*corev1.Service{},
		slices:   map[types.NamespacedName]*discoveryv1.EndpointSlice{},
		cidrs:    map[string]*networkingv1.ServiceCIDR{},
	}
}

func (r *recorder) tell(format string, args ...any) func() {
	r.mu.Lock()
	r.told = append(r.told, fmt.Sprintf(format, args...))
	return r.mu.Unlock
}

func (r *recorder) SetService(s *corev1.Service) {
	defer r.tell("set service %s", nameOf(s))()
	r.services[nameOf(s)] = s
}

func (r *recorder) DeleteService(n types.NamespacedName) {
	defer r.tell("delete service %s", n)()
	delete(r.services, n)
}

func (r *recorder) SetSlice(s *discoveryv1.EndpointSlice) {
	defer r.tell("set slice %s", nameOf(s))()
	r.slices[nameOf(s)] = s
}

func (r *recorder) DeleteSlice(n types.NamespacedName) {
	defer r.tell("delete slice %s", n)()
	delete(r.slices, n)
}

func (r *recorder) SetNode(n *corev1.Node) {
	defer r.tell("set node %s", n.Name)()
	r.node = n
}

func (r *recorder) DeleteNode() {
	defer r.tell("delete node")()
	r.node = nil
}

func (r *recorder) SetServiceCIDR(c *networkingv1.ServiceCIDR) {
	defer r.tell("set ServiceCIDR %s", c.Name)()
	r.cidrs[c.Name] = c
}

func (r *recorder) DeleteServiceCIDR(name string) {
	defer r.tell("delete ServiceCIDR %s", name)()
	delete(r.cidrs, name)
}

func (r *recorder) Synced() {
	defer r.tell("synced")()
	r.synced++
}

// take returns what was told since the last call.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := r.told
	r.told = nil
	return told
}

// await waits until every line was told, in any order and among others.
func (r *recorder) await(t *testing.T, lines ...string) {
	t.Helper()
	eventually(t, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, line := range lines {
			if !slices.Contains(r.told, line) {
				return fmt.Errorf("not told %q; told:\n%s", line, strings.Join(r.told, "\n"))
			}
		}
		return nil
	})
}

// names returns what exists now.
func (r *recorder) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for n := range maps.Keys(r.services) {
		all = append(all, "service "+n.String())
	}
	for n := range maps.Keys(r.slices) {
		all = append(all, "slice "+n.String())
	}
	for n := range maps.Keys(r.cidrs) {
		all = append(all, "ServiceCIDR "+n)
	}
	slices.Sort(all)
	return all
}

func (r *recorder) service(name string) *corev1.Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.services[types.NamespacedName{Namespace: "default", Name: name}]
}

func (r *recorder) theNode() *corev1.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.node
}

// eventually polls until check returns nil.
func eventually(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// logs collects a log as text, without times.
type logs struct{ netlab.Output }

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

func (l *logs) await(t *testing.T, text string) {
	t.Helper()
	eventually(t, func() error {
		if len(l.Lines(text)) == 0 {
			return fmt.Errorf("no %q in the log:\n%s", text, l.String())
		}
		return nil
	})
}
