// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestControllers has a real controller write the EndpointSlice of a Service that
// kubectl makes, also after the server was away; and a ServiceAccount that kubectl
// makes asks for it with a token of its own, as the audit log shows.
func TestControllers(t *testing.T) {
	t.Parallel()
	policy, auditLog := filepath.Join(t.TempDir(), "policy.yaml"), filepath.Join(t.TempDir(), "audit.log")
	account := ServiceAccount("kube-system", "reader")
	if err := os.WriteFile(policy, AuditPolicy(account.Name), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Run(t, Config{
		Controllers: []string{"endpointslice-controller"},
		Args:        []string{"--audit-policy-file=" + policy, "--audit-log-path=" + auditLog},
	})
	awaitSlice := func(service string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := poll(ctx, 20*time.Millisecond, func() (bool, error) {
			var list discoveryv1.EndpointSliceList
			err := c.Do(ctx, http.MethodGet, slicesPath+"?labelSelector="+discoveryv1.LabelServiceName+"="+service, nil, &list)
			return len(list.Items) > 0, err
		})
		if err != nil {
			t.Fatalf("no EndpointSlice of Service %s: %v", service, err)
		}
	}
	kubectl := func(args ...string) {
		t.Helper()
		if _, err := c.Kubectl(t.Context(), "", args...); err != nil {
			t.Fatal(err)
		}
	}
	kubectl("create", "service", "clusterip", "web", "--tcp=80")
	awaitSlice("web")
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	kubectl("create", "service", "clusterip", "later", "--tcp=80")
	awaitSlice("later")

	kubectl("create", "serviceaccount", "reader", "--namespace=kube-system")
	kubectl("create", "clusterrole", "reader", "--verb=list", "--resource=endpointslices.discovery.k8s.io")
	kubectl("create", "clusterrolebinding", "reader", "--clusterrole=reader", "--serviceaccount=kube-system:reader")
	token, err := c.Token(t.Context(), "kube-system", "reader")
	if err != nil {
		t.Fatal(err)
	}
	err = poll(t.Context(), 20*time.Millisecond, func() (bool, error) { // the server learns of roles from a watch
		err := Do(t.Context(), c.TokenClient(token), http.MethodGet, c.URL+slicesPath, nil, nil)
		return err == nil, t.Context().Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := Requests(auditLog)
	if err != nil || len(all) == 0 {
		t.Fatalf("requests of %s: %v, %v", account.Name, all, err)
	}
	last := all[len(all)-1]
	got := fmt.Sprint(last.User, " ", last.Verb, " ", last.Resource, ".", last.Group, " ", last.Code)
	if want := account.Name + " list endpointslices.discovery.k8s.io 200"; got != want {
		t.Errorf("the last request is %q, want %q", got, want)
	}
	path, err := c.AccountKubeconfig(t.Context(), "kube-system", "reader")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || !strings.Contains(string(text), c.URL) {
		t.Errorf("kubeconfig %s (%v):\n%s", path, err, text)
	}
}
