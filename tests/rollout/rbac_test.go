// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

const (
	rolePath   = "/apis/rbac.authorization.k8s.io/v1/clusterroles/kube-nft"
	eventsPath = "/apis/events.k8s.io/v1/namespaces/default/events"
)

// permission is one verb on one resource.
type permission struct{ group, resource, verb string }

func (p permission) String() string {
	name := p.resource
	if p.group != "" {
		name += "." + p.group
	}
	return p.verb + " " + name
}

func (p permission) compare(other permission) int { return strings.Compare(p.String(), other.String()) }

// TestPermissions compares what deploy/ grants to kube-nft with what it asks for, as
// the server's audit log tells: over a restart, and with events on Services.
func TestPermissions(t *testing.T) {
	used, granted := make(map[permission]bool), make(map[permission]bool)
	// Also if kube-nft does not get anywhere: then this says why.
	defer func() { comparePermissions(t, used, granted) }()
	s := newSite(t, 1)
	maps.Copy(granted, s.granted())
	defer func() { maps.Copy(used, s.used()) }()
	s.exercise()
}

func comparePermissions(t *testing.T, used, granted map[permission]bool) {
	t.Helper()
	complete := !t.Failed()
	for _, p := range slices.SortedFunc(maps.Keys(used), permission.compare) {
		if !granted[p] {
			t.Errorf("missing in %s/rbac.yaml: kube-nft asks to %q", manifests, p)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(granted), permission.compare) {
		if complete && !used[p] {
			t.Errorf("superfluous in %s/rbac.yaml: kube-nft never asks to %q", manifests, p)
		}
	}
	if !t.Failed() {
		t.Logf("granted and used: %q", slices.SortedFunc(maps.Keys(granted), permission.compare))
	}
}

// used are the permissions that kube-nft has asked for so far, in vain or not.
func (s *site) used() map[permission]bool {
	s.t.Helper()
	all := make(map[permission]bool)
	for _, r := range s.requests() {
		if r.User == account.Name {
			all[permission{r.Group, r.Resource, r.Verb}] = true
		}
	}
	return all
}

// exercise has kube-nft do all that it asks the API server for.
func (s *site) exercise() {
	s.t.Helper()
	n := s.nodes[0]
	web := s.createPod(n, "web")
	s.apply("first", "web")
	s.apply("second", "web")
	agent := s.startAgent(n)
	agent.Await(soon, programmed)
	agent.End(syscall.SIGTERM)
	agent = s.startAgent(n)
	agent.Await(soon, programmed)
	first := s.service("first")
	s.Answers(soon, n.Namespace, "tcp", first.at(0), web.Name())
	event := s.conflict("first", "second")
	// What the same process says once more after ten minutes, as controller/event
	// writes it.
	series := eventsv1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(time.Now())}
	s.Must(s.asAgent(http.MethodPatch, eventsPath+"/"+event.Name, map[string]any{"series": series}))
}

// conflict gives two Services the same external IP, and waits for the event about it.
func (s *site) conflict(services ...string) (event eventsv1.Event) {
	s.t.Helper()
	for _, name := range services {
		s.patch(servicesPath+"/"+name, map[string]any{"spec": map[string]any{"externalIPs": []string{"203.0.113.99"}}})
	}
	s.Eventually(soon, func() error {
		var all eventsv1.EventList
		s.do(http.MethodGet, eventsPath, nil, &all)
		for _, event = range all.Items {
			if event.Reason == "FrontendConflict" {
				return nil
			}
		}
		return errors.New("no event about Services that want the same address")
	})
	return event
}

// asAgent sends a request with kube-nft's token.
func (s *site) asAgent(method, path string, in any) error {
	s.t.Helper()
	token, err := s.api.Token(s.t.Context(), "kube-system", "kube-nft")
	s.Must(err)
	return cluster.Do(s.t.Context(), s.api.TokenClient(token), method, s.api.URL+path, in, nil)
}

// granted are the permissions of the ClusterRole as it is applied.
func (s *site) granted() map[permission]bool {
	s.t.Helper()
	var role rbacv1.ClusterRole
	s.do(http.MethodGet, rolePath, nil, &role)
	all := make(map[permission]bool)
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					all[permission{group, resource, verb}] = true
				}
			}
		}
	}
	return all
}

// grant replaces the rules of the ClusterRole, and waits until the server knows.
func (s *site) grant(all map[permission]bool, but permission) {
	s.t.Helper()
	var role rbacv1.ClusterRole
	s.do(http.MethodGet, rolePath, nil, &role)
	role.Rules = nil
	for p := range all {
		if p != but {
			role.Rules = append(role.Rules, rbacv1.PolicyRule{APIGroups: []string{p.group}, Resources: []string{p.resource}, Verbs: []string{p.verb}})
		}
	}
	s.do(http.MethodPut, rolePath, &role, nil)
	s.Eventually(soon, func() error {
		for p := range all {
			if allowed := s.may(p); allowed != (p != but) {
				return fmt.Errorf("%v: allowed is %v", p, allowed)
			}
		}
		return nil
	})
}

// may asks the server whether kube-nft has a permission.
func (s *site) may(p permission) bool {
	s.t.Helper()
	allowed, err := s.api.May(s.t.Context(), account, p.verb, p.group, p.resource)
	s.Must(err)
	return allowed
}

// TestPermissionLacks takes one permission after the other away: each time kube-nft
// says in its log which one it lacks, by verb and resource.
func TestPermissionLacks(t *testing.T) {
	s := newSite(t, 1)
	n := s.nodes[0]
	s.createPod(n, "web")
	s.apply("first", "web")
	s.apply("second", "web")
	all := s.granted()
	for i, p := range slices.SortedFunc(maps.Keys(all), permission.compare) {
		s.grant(all, p)
		if p.verb == "patch" {
			err := s.asAgent(http.MethodPatch, eventsPath+"/any", map[string]any{})
			s.Must(wantStatus(err, http.StatusForbidden))
			t.Logf("without %v: %v", p, err)
			continue
		}
		agent := s.startAgent(n)
		if p.resource == "events" {
			agent.Await(soon, programmed)
			for _, name := range []string{"first", "second"} { // another address each time: nothing has been said of it
				s.patch(servicesPath+"/"+name, map[string]any{"spec": map[string]any{"externalIPs": []string{fmt.Sprintf("203.0.113.%d", 100+i)}}})
			}
		}
		want := fmt.Sprintf("cannot %s resource %q in API group %q", p.verb, p.resource, p.group)
		var line map[string]any
		err := netlab.Poll(soon, func() error {
			for _, line = range agent.Logged("") {
				if text, _ := line["err"].(string); line["level"] == "WARN" && strings.Contains(text, want) {
					return nil
				}
			}
			return fmt.Errorf("without permission to %v the log has no warning with %q:\n%s", p, want, agent.Text())
		})
		if err != nil {
			t.Error(err)
		} else {
			t.Logf("without %v: %v: %v; mend: %v", p, line["msg"], line["err"], line["mend"])
		}
		agent.End(syscall.SIGTERM)
		s.cleanAgent(n)
	}
}
