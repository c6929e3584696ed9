// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller/source"
)

// copyManifests copies the manifests at path to a directory of their own, which
// the demo may edit. The caller removes it.
func copyManifests(path string) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "kube-nft-demo-"); err != nil {
		return "", fmt.Errorf("copy manifests: %w", err)
	}
	files, err := source.Manifests(path)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), data, 0o600)
		}
		if err != nil {
			return dir, fmt.Errorf("copy manifests: %w", err)
		}
	}
	return dir, err
}

// podNames reads what the demo calls endpoints: the pods that they are, which is
// nothing that a Service proxy keeps.
func podNames(path string) (map[netip.Addr]string, error) {
	files, err := source.Manifests(path)
	if err != nil {
		return nil, err
	}
	names := make(map[netip.Addr]string)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		documents, err := splitManifest(data)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		for _, d := range documents {
			s, _ := asSlice(d)
			for _, e := range s.Endpoints {
				for _, a := range e.Addresses {
					if addr, err := netip.ParseAddr(a); err == nil && e.TargetRef != nil {
						names[addr] = e.TargetRef.Name
					}
				}
			}
		}
	}
	return names, nil
}

// splitManifest returns the documents of a manifest.
func splitManifest(data []byte) ([][]byte, error) {
	in := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var documents [][]byte
	for {
		d, err := in.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		documents = append(documents, d)
	}
}

// asSlice reads a document, if it is an EndpointSlice.
func asSlice(document []byte) (s discoveryv1.EndpointSlice, ok bool) {
	if err := yaml.Unmarshal(document, &s); err != nil || s.Kind != "EndpointSlice" {
		return discoveryv1.EndpointSlice{}, false
	}
	return s, true
}

// withoutEndpoint takes a pod out of a Service's slices in a manifest, and counts
// how often it was there; everything else stays as it is written.
func withoutEndpoint(manifest []byte, service types.NamespacedName, pod *demoPod) (out []byte, removed int, err error) {
	documents, err := splitManifest(manifest)
	if err != nil {
		return nil, 0, err
	}
	for i, d := range documents {
		s, ok := asSlice(d)
		namespace := cmp.Or(s.Namespace, corev1.NamespaceDefault)
		if !ok || s.Labels[discoveryv1.LabelServiceName] != service.Name || namespace != service.Namespace {
			continue
		}
		before := len(s.Endpoints)
		s.Endpoints = slices.DeleteFunc(s.Endpoints, func(e discoveryv1.Endpoint) bool {
			a, err := netip.ParseAddr(e.Addresses[0])
			return err == nil && slices.Contains(pod.addrs, a)
		})
		removed += before - len(s.Endpoints)
		if documents[i], err = yaml.Marshal(&s); err != nil {
			return nil, 0, err
		}
	}
	return bytes.Join(documents, []byte("\n---\n")), removed, nil
}

// edit is a manifest with and without an endpoint.
type edit struct {
	path              string
	original, without []byte
}

// editManifest finds the file in which a Service has a pod as an endpoint; nil
// if there is none that has all of it.
func editManifest(dir string, service types.NamespacedName, pod *demoPod) (*edit, error) {
	files, err := source.Manifests(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		e := &edit{path: f}
		if e.original, err = os.ReadFile(f); err != nil {
			return nil, err
		}
		removed := 0
		if e.without, removed, err = withoutEndpoint(e.original, service, pod); err != nil {
			return nil, fmt.Errorf("edit %s: %w", f, err)
		}
		if removed == len(pod.addrs) {
			return e, nil
		}
	}
	return nil, nil
}

// replace replaces the file by rename, so that nobody reads half of it, and
// returns when that happened.
func (e *edit) replace(data []byte) (time.Time, error) {
	next := e.path + ".next"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	return now, os.Rename(next, e.path)
}
