// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

const pods = "/api/v1/namespaces/kube-system/pods"

// server is a real API server, and kubectl that asks it.
type server struct {
	*cluster.Cluster
	t *testing.T
}

func newServer(t *testing.T) server {
	t.Helper()
	return server{cluster.Run(t, cluster.Config{}), t}
}

// kubectl runs kubectl with a text as its input.
func (s server) kubectl(input string, args ...string) string {
	s.t.Helper()
	out, err := run(s.t, input, program(s.t, cluster.Kubectl), append([]string{"--kubeconfig=" + s.Kubeconfig(cluster.Admin)}, args...)...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s server) get(path string, object any) {
	s.t.Helper()
	if err := s.Do(s.t.Context(), http.MethodGet, path, nil, object); err != nil {
		s.t.Fatal(err)
	}
}

// TestServer: a kube-apiserver takes what each way gives, field by field, and the pods
// that its DaemonSet would make.
func TestServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, w := range ways {
		text := w.kustomize(t)
		s.kubectl(text, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
		rendered, err := helm(t, w.values...)
		if err != nil {
			t.Fatal(err)
		}
		s.kubectl(rendered, "apply", "--dry-run=server", "--validate=strict", "-f", "-")
	}
	s.kubectl("", "apply", "--validate=strict", "-f", deploy+"/kube-nft.yaml")
	for _, w := range ways {
		set := objects(t, w.kustomize(t))["DaemonSet kube-system/kube-nft"].(*appsv1.DaemonSet)
		pod := corev1.Pod{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
			ObjectMeta: metav1.ObjectMeta{Name: w.name, Labels: set.Spec.Template.Labels},
			Spec:       set.Spec.Template.Spec,
		}
		if err := s.Do(t.Context(), http.MethodPost, pods, pod, &pod); err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		if *pod.Spec.Priority != 2000001000 {
			t.Errorf("%s: priority %d, want that of system-node-critical", w.name, *pod.Spec.Priority)
		}
	}
	s.verifyUpdates()
}

// verifyUpdates goes from each way to the next with kubectl apply, as an operator who
// starts with a trial does: no field in the way is one that cannot change.
func (s server) verifyUpdates() {
	s.t.Helper()
	for _, w := range append(slices.Clone(ways), ways[0]) {
		text := w.kustomize(s.t)
		s.kubectl(text, "apply", "--validate=strict", "-f", "-")
		var got appsv1.DaemonSet
		s.get("/apis/apps/v1/namespaces/kube-system/daemonsets/kube-nft", &got)
		want := objects(s.t, text)["DaemonSet kube-system/kube-nft"].(*appsv1.DaemonSet)
		for i, c := range want.Spec.Template.Spec.Containers {
			if d := cmp.Diff(c.Args, got.Spec.Template.Spec.Containers[i].Args); d != "" {
				s.t.Errorf("%s: arguments (-want +got):\n%s", w.name, d)
			}
		}
		if d := cmp.Diff(want.Spec.Template.Spec.NodeSelector, got.Spec.Template.Spec.NodeSelector); d != "" {
			s.t.Errorf("%s: node selector (-want +got):\n%s", w.name, d)
		}
		if w, g := len(want.Spec.Template.Spec.InitContainers), len(got.Spec.Template.Spec.InitContainers); w != g {
			s.t.Errorf("%d init containers, want %d", g, w)
		}
	}
}

// TestRemove: what docs/install.md says removes the table of a node, and what kube-proxy
// leaves, makes pods that can do so.
func TestRemove(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.createNode("node-1")
	for _, c := range []struct {
		profile, image string
		command        []string
		can            func(*corev1.SecurityContext) bool
	}{
		{"netadmin", "kube-nft:latest", []string{"/kube-nft", "cleanup"}, func(c *corev1.SecurityContext) bool {
			return c.Capabilities != nil && slices.Contains(c.Capabilities.Add, "NET_ADMIN")
		}},
		{"sysadmin", "registry.k8s.io/kube-proxy:v1.37.2", []string{"/usr/local/bin/kube-proxy", "--cleanup"}, func(c *corev1.SecurityContext) bool {
			return c.Privileged != nil && *c.Privileged
		}},
	} {
		s.kubectl("", append([]string{"debug", "node/node-1", "-n", "kube-system", "--profile=" + c.profile, "--image=" + c.image, "--"}, c.command...)...)
		var list corev1.PodList
		s.get(pods+"?labelSelector=app.kubernetes.io/managed-by=kubectl-debug", &list)
		if len(list.Items) != 1 {
			t.Fatalf("%d pods", len(list.Items))
		}
		spec := list.Items[0].Spec
		container := spec.Containers[0]
		if !spec.HostNetwork || spec.NodeName != "node-1" || spec.RestartPolicy != corev1.RestartPolicyNever || !c.can(container.SecurityContext) {
			t.Errorf("the pod is %+v", spec)
		}
		if d := cmp.Diff(c.command, container.Command); d != "" {
			t.Errorf("command (-want +got):\n%s", d)
		}
		s.kubectl("", "delete", "pod", "-n", "kube-system", "--force", "-l", "app.kubernetes.io/managed-by=kubectl-debug")
	}
}

// TestNodeByNode: in a cluster with what kubeadm makes, the DaemonSet controller has
// kube-nft or kube-proxy on a node, never both, as the node's label says; there and
// back.
func TestNodeByNode(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.startDaemonSetController()
	for _, node := range []string{"node-1", "node-2", "node-3"} {
		s.createNode(node)
	}
	s.kubectl("", "apply", "--validate=strict", "-f", "testdata/kubeadm.yaml")
	s.await(map[string]string{"node-1": "kube-proxy", "node-2": "kube-proxy", "node-3": "kube-proxy"})

	s.kubectl("", "-n", "kube-system", "patch", "daemonset", "kube-proxy", "--patch-file", deploy+"/kustomize/node-by-node/kube-proxy.yaml")
	s.kubectl(ways[1].kustomize(t), "apply", "--validate=strict", "-f", "-")
	s.await(map[string]string{"node-1": "kube-proxy", "node-2": "kube-proxy", "node-3": "kube-proxy"})

	s.kubectl("", "label", "node", "node-2", "kube-nft.github.io/proxy=kube-nft")
	s.await(map[string]string{"node-1": "kube-proxy", "node-2": "kube-nft", "node-3": "kube-proxy"})
	s.kubectl("", "label", "node", "node-1", "node-3", "kube-nft.github.io/proxy=kube-nft")
	s.await(map[string]string{"node-1": "kube-nft", "node-2": "kube-nft", "node-3": "kube-nft"})
	s.kubectl("", "label", "node", "node-3", "kube-nft.github.io/proxy-")
	s.await(map[string]string{"node-1": "kube-nft", "node-2": "kube-nft", "node-3": "kube-proxy"})
}

func (s server) createNode(name string) {
	s.t.Helper()
	node := corev1.Node{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/os": "linux"}},
	}
	if err := s.Do(s.t.Context(), http.MethodPost, "/api/v1/nodes", node, nil); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until each node has a pod of the named DaemonSet alone.
func (s server) await(want map[string]string) {
	s.t.Helper()
	err := netlab.Poll(30*time.Second, func() error {
		got, err := s.schedule()
		if err != nil {
			return err
		}
		if d := cmp.Diff(want, got); d != "" {
			return fmt.Errorf("pods (-want +got):\n%s", d)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// schedule does what a scheduler and kubelets would: it puts each pod on the node that
// the controller wants it on, and lets those go that are to end. It returns the
// DaemonSets whose pods a node has.
func (s server) schedule() (map[string]string, error) {
	var list corev1.PodList
	if err := s.Do(s.t.Context(), http.MethodGet, pods, nil, &list); err != nil {
		return nil, err
	}
	owners := make(map[string]string)
	for _, p := range list.Items {
		path := pods + "/" + p.Name
		if p.DeletionTimestamp != nil {
			if err := s.Do(s.t.Context(), http.MethodDelete, path+"?gracePeriodSeconds=0", nil, nil); err != nil {
				return nil, err
			}
			continue
		}
		terms := p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		node := terms[0].MatchFields[0].Values[0]
		owners[node] += p.OwnerReferences[0].Name
		if p.Spec.NodeName == "" {
			binding := corev1.Binding{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Binding"}, ObjectMeta: metav1.ObjectMeta{Name: p.Name},
				Target: corev1.ObjectReference{Kind: "Node", Name: node},
			}
			if err := s.Do(s.t.Context(), http.MethodPost, path+"/binding", binding, nil); err != nil {
				return nil, err
			}
		}
	}
	return owners, nil
}

// startDaemonSetController runs a kube-controller-manager with that controller alone,
// until the test ends.
func (s server) startDaemonSetController() {
	s.t.Helper()
	var out netlab.Output
	cmd := exec.CommandContext(s.t.Context(), program(s.t, cluster.ControllerManager), "--kubeconfig="+s.Kubeconfig(cluster.Admin),
		"--controllers=daemonset-controller", "--leader-elect=false", "--secure-port=0", "--use-service-account-credentials=false")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { // the context has ended, and the process with it
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("the controller:\n%s", &out)
		}
	})
}

// TestAccount: the server lets the account do what the program asks for, and says no to
// what would be worth stealing.
func TestAccount(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.kubectl("", "apply", "--validate=strict", "-f", deploy+"/kube-nft.yaml")
	err := netlab.Poll(30*time.Second, func() error { // the server learns of roles from a watch of its own
		if !s.allows("list services") {
			return errors.New("the account may do nothing yet")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for question, want := range map[string]bool{
		"list services": true, "watch services": true, "list nodes": true, "watch nodes": true,
		"list endpointslices.discovery.k8s.io": true, "watch endpointslices.discovery.k8s.io": true,
		"list servicecidrs.networking.k8s.io": true, "watch servicecidrs.networking.k8s.io": true,
		"create events.events.k8s.io": true, "patch events.events.k8s.io": true,
		"list secrets": false, "get configmaps": false, "list pods": false, "patch nodes": false, "get nodes": false,
		"update services": false, "patch services": false, "create pods": false, "list events.events.k8s.io": false,
	} {
		if got := s.allows(question); got != want {
			t.Errorf("%s: allowed is %t", question, got)
		}
	}
}

// allows asks the server whether kube-nft's account may do something, in all namespaces.
func (s server) allows(question string) bool {
	s.t.Helper()
	verb, resource, _ := strings.Cut(question, " ")
	name, group, _ := strings.Cut(resource, ".")
	allowed, err := s.May(s.t.Context(), cluster.ServiceAccount("kube-system", "kube-nft"), verb, group, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return allowed
}
