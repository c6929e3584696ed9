// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/tests/cluster"
)

const (
	servicesPath = "/api/v1/namespaces/default/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
	nodesPath    = "/api/v1/nodes"
)

// write makes the API hold what a plan says, and nothing else of its Service.
func (w *twins) write(p *plan) {
	w.t.Helper()
	service, path := p.service(), servicesPath+"/"+p.name
	w.put(servicesPath, path, service)
	ingress := map[string]any{"ingress": p.status()}
	if service.Spec.Type == corev1.ServiceTypeLoadBalancer {
		w.do(http.MethodPatch, path+"/status", map[string]any{"status": map[string]any{"loadBalancer": ingress}}, nil)
		service.Status.LoadBalancer.Ingress = p.status()
	}
	w.objects[path] = service

	stale := w.slicesOf(p.name)
	for _, s := range p.endpointSlices() {
		path := slicesPath + "/" + s.Name
		w.put(slicesPath, path, s)
		w.objects[path] = s
		delete(stale, path)
	}
	for path := range stale {
		w.remove(path)
	}
}

// erase deletes a plan's Service, and its slices.
func (w *twins) erase(p *plan) {
	w.t.Helper()
	w.remove(servicesPath + "/" + p.name)
	for path := range w.slicesOf(p.name) {
		w.remove(path)
	}
}

// put updates an object, or creates it in the collection.
func (w *twins) put(collection, path string, object any) {
	w.t.Helper()
	if _, ok := w.objects[path]; ok {
		w.do(http.MethodPut, path, object, nil)
		return
	}
	w.do(http.MethodPost, collection, object, nil)
}

// remove deletes an object, which may be gone.
func (w *twins) remove(path string) {
	w.t.Helper()
	err := w.api.Do(w.t.Context(), http.MethodDelete, path, nil, nil)
	if status := new(cluster.StatusError); err != nil && !(errors.As(err, &status) && status.Code == http.StatusNotFound) {
		w.t.Fatal(err)
	}
	delete(w.objects, path)
}

// slicesOf returns the paths of a Service's slices that are written.
func (w *twins) slicesOf(service string) map[string]bool {
	paths := make(map[string]bool)
	for path := range w.objects {
		for _, f := range families {
			if strings.HasPrefix(path, fmt.Sprintf("%s/%s-%s-", slicesPath, service, strings.ToLower(string(f)))) {
				paths[path] = true
			}
		}
	}
	return paths
}

// yaml returns the objects of a Service as manifests, or all if it has no name.
func (w *twins) yaml(service string) string {
	var b strings.Builder
	mine := w.slicesOf(service)
	for _, path := range slices.Sorted(maps.Keys(w.objects)) {
		if service != "" && path != servicesPath+"/"+service && !mine[path] {
			continue
		}
		text, err := yaml.Marshal(w.objects[path])
		w.Must(err)
		b.WriteString("---\n")
		b.Write(text)
	}
	return b.String()
}
