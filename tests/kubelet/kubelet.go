// SPDX-License-Identifier: Apache-2.0

// Package kubelet runs pods on a node that is a network namespace, as the kubelet
// would: the pod is an object of a real API server, and its containers are made by
// a real containerd and runc, which are asked through the Container Runtime
// Interface. So what a container may do is what it may do in a cluster: its
// capabilities, seccomp profile and file systems are the runtime's answer to what
// the manifest says, not ours.
//
// The namespace is the node: containerd runs in it, and pods on the host's network
// are in it too. There are no other pods, because nothing here sets up a network for
// them. containerd also has mounts and process ids of its own, hence no process and no
// mount outlives the test, however it ends. A test that is killed leaves temporary
// directories and, for each container, empty cgroups.
//
// What the kubelet does and this package does not: status of pods and nodes, restarts,
// requests and limits, volumes other than ConfigMap, hostPath, emptyDir and the service
// account's, images from a registry, liveness probes in the background. A field of a
// pod that asks for what is not done is an error where that could mislead.
//
// It needs root, and containerd, runc and buildah as Debian has them.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Config says where a Kubelet runs.
type Config struct {
	Node  string            // the name of its Node object
	Addr  netip.Addr        // the node's, where probes go
	Net   *netlab.Namespace // the node's network
	API   *cluster.Cluster  // where pods are
	Tools Tools
}

// Kubelet runs pods on one node. Its methods belong to one goroutine.
type Kubelet struct {
	config  Config
	dir     string // volumes, logs, all of containerd; gone after Close
	runtime *containerd
	pods    []*Pod
}

// limit bounds what should take a second.
const limit = time.Minute

// Run starts a Kubelet that ends with the test, and its pods with it. If the test
// has failed by then, the logs are in the test's output.
func Run(t testing.TB, config Config) *Kubelet {
	t.Helper()
	k, err := Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs of %s:\n%s", config.Node, k.Logs())
		}
		if err := k.Close(); err != nil {
			t.Errorf("close kubelet: %v", err)
		}
	})
	return k
}

// Start starts containerd and returns when it answers. The caller must Close.
func Start(ctx context.Context, config Config) (*Kubelet, error) {
	dir, err := os.MkdirTemp("", "kube-nft-kubelet-")
	if err != nil {
		return nil, err
	}
	k := &Kubelet{config: config, dir: dir}
	if k.runtime, err = startContainerd(ctx, config, filepath.Join(dir, "containerd")); err == nil {
		err = k.Load(ctx, config.Tools.pauseImage())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start kubelet of %s: %w\n%s", config.Node, err, k.runtime.log()), k.Close())
	}
	return k, nil
}

// Load makes the images of a docker-archive known to the node, under the names that
// they have in it.
func (k *Kubelet) Load(ctx context.Context, archive string) error {
	return k.runtime.load(ctx, archive)
}

// Close removes the pods and ends containerd. It is idempotent.
func (k *Kubelet) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var errs []error
	for _, p := range k.pods {
		errs = append(errs, p.Remove(ctx))
	}
	k.pods = nil
	return errors.Join(append(errs, k.runtime.stop(), os.RemoveAll(k.dir))...)
}

// Logs returns what the containers of all pods and containerd have written.
func (k *Kubelet) Logs() (text string) {
	for _, p := range k.pods {
		for _, c := range p.containers {
			text += fmt.Sprintf("%s, container %s:\n%s", p.Object.Name, c.name, p.Log(c.name))
		}
	}
	return text + "containerd:\n" + k.runtime.log()
}

// do asks the API server as an administrator: what a kubelet may do is not what
// tests of this package are about.
func (k *Kubelet) do(ctx context.Context, method, path string, in, out any) error {
	return k.config.API.Do(ctx, method, path, in, out)
}

// client dials in the node's namespace, for probes.
func (k *Kubelet) client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{DialContext: k.config.Net.DialContext, DisableKeepAlives: true},
	}
}

// find returns an object that a pod refers to.
func find[T any](ctx context.Context, k *Kubelet, namespace, kind, name string) (*T, error) {
	var object T
	path := fmt.Sprintf("/api/v1/namespaces/%s/%s/%s", namespace, kind, name)
	if err := k.do(ctx, http.MethodGet, path, nil, &object); err != nil {
		return nil, err
	}
	return &object, nil
}

// podPath is where a pod is in the API.
func podPath(pod *corev1.Pod) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/pods/%s", pod.Namespace, pod.Name)
}
