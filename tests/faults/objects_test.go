// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/tests/cluster"
)

// objects is where kube-nft's objects come from.
type objects interface {
	// put makes objects, or makes them what they are to be.
	put(tb testing.TB, all ...runtime.Object)
	// remove deletes Services of the namespace default, with their slices.
	remove(tb testing.TB, services ...string)
	// all lists what there is now.
	all(ctx context.Context) ([]runtime.Object, error)
}

// manifests are objects in a directory, each in a file of its own.
type manifests struct{ dir string }

func newManifests(t *testing.T) manifests { return manifests{t.TempDir()} }

func fileOf(o runtime.Object) string {
	switch o := o.(type) {
	case *corev1.Service:
		return "service-" + o.Name
	case *discoveryv1.EndpointSlice:
		return "slice-" + o.Name
	case *corev1.Node:
		return "node-" + o.Name
	}
	panic("no such object here")
}

func (m manifests) put(tb testing.TB, all ...runtime.Object) {
	tb.Helper()
	for _, o := range all {
		text, err := yaml.Marshal(o)
		if err != nil {
			tb.Fatal(err)
		}
		next := filepath.Join(m.dir, "."+fileOf(o))
		if err := errors.Join(os.WriteFile(next, text, 0o644), os.Rename(next, filepath.Join(m.dir, fileOf(o)+".yaml"))); err != nil {
			tb.Fatal(err)
		}
	}
}

func (m manifests) remove(tb testing.TB, services ...string) {
	tb.Helper()
	for _, name := range services {
		for _, file := range []string{"service-" + name, "slice-" + sliceName(name, 0), "slice-" + sliceName(name, 1)} {
			if err := os.Remove(filepath.Join(m.dir, file+".yaml")); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

func (m manifests) all(context.Context) ([]runtime.Object, error) {
	return source.ReadDir(m.dir, source.DirOptions{NodeName: nodeName, Check: model.Check})
}

// user is who kube-nft is.
var user = cluster.ServiceAccount("kube-system", "kube-nft")

// apiObjects are objects in a real API server.
type apiObjects struct{ *cluster.Cluster }

const (
	servicesPath = "/api/v1/namespaces/default/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
	nodesPath    = "/api/v1/nodes"
	cidrsPath    = "/apis/networking.k8s.io/v1/servicecidrs"
	rbacPath     = "/apis/rbac.authorization.k8s.io/v1"
)

// allow gives kube-nft what it may do (deploy/kustomize/base).
func (a *apiObjects) allow(t *testing.T) {
	t.Helper()
	role := &rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services", "nodes"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: []string{"list", "watch"}},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}}
	role.Name = "kube-nft"
	binding := &rbacv1.ClusterRoleBinding{
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "kube-system", Name: "kube-nft"}},
	}
	binding.Name = role.Name
	err := errors.Join(a.Do(t.Context(), http.MethodPost, rbacPath+"/clusterroles", role, nil),
		a.Do(t.Context(), http.MethodPost, rbacPath+"/clusterrolebindings", binding, nil))
	if err != nil {
		t.Fatal(err)
	}
}

func (a *apiObjects) put(tb testing.TB, all ...runtime.Object) {
	tb.Helper()
	for _, o := range all {
		if err := a.write(tb.Context(), o); err != nil {
			tb.Fatal(err)
		}
	}
}

// write makes an object what it is to be, or makes it if there is none.
func (a *apiObjects) write(ctx context.Context, o runtime.Object) error {
	path, name := slicesPath, ""
	patch := any(o)
	switch o := o.(type) {
	case *corev1.Service:
		path, name = servicesPath, o.Name
		whole, err := withoutAffinity(o)
		if err != nil {
			return err
		}
		patch = whole
	case *discoveryv1.EndpointSlice:
		name = o.Name
	case *corev1.Node:
		path, name = nodesPath, o.Name
	}
	err := a.Do(ctx, http.MethodPatch, path+"/"+name, patch, nil)
	if status, ok := errors.AsType[*cluster.StatusError](err); ok && status.Code == http.StatusNotFound {
		if err = a.Do(ctx, http.MethodPost, path, o, nil); err == nil {
			if _, isNode := o.(*corev1.Node); isNode {
				return a.Do(ctx, http.MethodPatch, path+"/"+name+"/status", o, nil)
			}
		}
	}
	return err
}

// withoutAffinity is a Service as a patch that also takes away what it does not have.
func withoutAffinity(s *corev1.Service) (map[string]any, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var whole map[string]any
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, err
	}
	if s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP {
		whole["spec"].(map[string]any)["sessionAffinityConfig"] = nil
	}
	delete(whole, "status")
	return whole, nil
}

func (a *apiObjects) remove(tb testing.TB, services ...string) {
	tb.Helper()
	for _, name := range services {
		if err := a.deleteOf(tb.Context(), name, true); err != nil {
			tb.Fatal(err)
		}
	}
}

// deleteOf deletes a Service of one family or both.
func (a *apiObjects) deleteOf(ctx context.Context, service string, v6 bool) error {
	err := a.Do(ctx, http.MethodDelete, servicesPath+"/"+service, nil, nil)
	for _, f := range families[:1+btoi(v6)] {
		err = errors.Join(err, a.Do(ctx, http.MethodDelete, slicesPath+"/"+sliceName(service, f), nil, nil))
	}
	return err
}

func (a *apiObjects) all(ctx context.Context) (all []runtime.Object, err error) {
	var services corev1.ServiceList
	var slices discoveryv1.EndpointSliceList
	var cidrs networkingv1.ServiceCIDRList
	var node corev1.Node
	err = errors.Join(
		a.Do(ctx, http.MethodGet, "/api/v1/services", nil, &services),
		a.Do(ctx, http.MethodGet, "/apis/discovery.k8s.io/v1/endpointslices", nil, &slices),
		a.Do(ctx, http.MethodGet, cidrsPath, nil, &cidrs),
		a.Do(ctx, http.MethodGet, nodesPath+"/"+nodeName, nil, &node),
	)
	for i := range services.Items {
		all = append(all, &services.Items[i])
	}
	for i := range slices.Items {
		all = append(all, &slices.Items[i])
	}
	for i := range cidrs.Items {
		all = append(all, &cidrs.Items[i])
	}
	return append(all, &node), err
}
