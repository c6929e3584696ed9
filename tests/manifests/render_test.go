// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/tests/cluster"
)

const (
	deploy = "../../deploy"
	chart  = deploy + "/helm/kube-nft"
)

// way is one way to deploy kube-nft, by kustomize and by the chart.
type way struct {
	name, dir string
	values    []string
}

var ways = []way{
	{"base", "base", []string{"--set=apiServer=https://api-server.invalid:6443"}},
	{"kubeadm", "overlays/kubeadm", []string{"--values=" + chart + "/examples/kubeadm.yaml"}},
	{"kind", "overlays/kind", []string{"--values=" + chart + "/examples/kind.yaml"}},
	{"k3s", "overlays/k3s", []string{"--values=" + chart + "/examples/k3s.yaml"}},
	{"trial", "overlays/trial", []string{"--values=" + chart + "/examples/trial.yaml"}},
}

func (w way) kustomize(t *testing.T) string {
	t.Helper()
	return kustomize(t, deploy+"/kustomize/"+w.dir)
}

// TestChart: the chart gives the objects of the base, and of each overlay with the
// example of its name. Decoding them is strict: a field that the API does not have is
// an error.
func TestChart(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			rendered, err := helm(t, w.values...)
			if err != nil {
				t.Fatal(err)
			}
			want, got := objects(t, w.kustomize(t)), objects(t, rendered)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("chart differs (-kustomize +helm):\n%s", d)
			}
			if len(want) < 4 {
				t.Errorf("only %d objects", len(want))
			}
		})
	}
}

// TestChartRefuses: values that cannot work are named.
func TestChartRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		values []string
		want   string
	}{
		"nothing set":              {nil, "apiServer is required"},
		"no https":                 {[]string{"apiServer=api:6443"}, "apiServer"},
		"a path":                   {[]string{"apiServer=https://api:6443/x"}, "apiServer"},
		"two ways":                 {[]string{"apiServer=https://api:6443", "kubeconfigHostPath=/k"}, "set one of"},
		"kubeadm with config":      {[]string{"kubeadm.enabled=true"}, "set config to null"},
		"an unknown value":         {[]string{"apiServer=https://api:6443", "apiserver=x"}, "apiserver"},
		"a flag without dash":      {[]string{"apiServer=https://api:6443", "extraArgs={v=2}"}, "extraArgs"},
		"metrics nobody can reach": {[]string{"apiServer=https://api:6443", "monitoring.podMonitor=true"}, "metricsBindAddress"},
		"probes nobody answers":    {[]string{"apiServer=https://api:6443", "config.healthzBindAddress=127.0.0.1:10256"}, "healthzBindAddress"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var args []string
			for _, v := range c.values {
				args = append(args, "--set="+v)
			}
			if _, err := helm(t, args...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestChartValues: what the examples leave out.
func TestChartValues(t *testing.T) {
	t.Parallel()
	rendered, err := helm(t, "--set=kubeconfigHostPath=/etc/kubernetes/kube-nft.conf", "--set=image.repository=registry.example.org/kube-nft",
		"--set=image.tag=v1", "--set=extraArgs={--service-metrics=1000,-v=2}", "--set=imagePullSecrets[0].name=pull",
		"--set=config.clusterCIDR=10.0.0.0/8", "--set=resources.limits.memory=1Gi", "--set=maxUnavailable=10%")
	if err != nil {
		t.Fatal(err)
	}
	all := objects(t, rendered)
	text := all["ConfigMap kube-system/kube-nft"].(*corev1.ConfigMap).Data["config.conf"]
	for _, line := range []string{"clusterCIDR: 10.0.0.0/8", "kubeconfig: /var/lib/kube-nft/kubeconfig", "mode: nftables"} {
		if !strings.Contains(text, line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	set := all["DaemonSet kube-system/kube-nft"].(*appsv1.DaemonSet)
	if set.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String() != "10%" || set.Spec.Template.Spec.ImagePullSecrets[0].Name != "pull" {
		t.Errorf("the DaemonSet is %+v", set.Spec)
	}
	c := set.Spec.Template.Spec.Containers[0]
	want := []string{"run", "--config=/etc/kube-nft/config.conf", "--hostname-override=$(NODE_NAME)", "--service-metrics=1000", "-v=2"}
	if d := cmp.Diff(want, c.Args); d != "" {
		t.Errorf("arguments (-want +got):\n%s", d)
	}
	if c.Image != "registry.example.org/kube-nft:v1" || c.Resources.Limits.Memory().String() != "1Gi" || len(c.VolumeMounts) != 2 || len(c.Env) != 1 {
		t.Errorf("the container is %+v", c)
	}
}

// TestChartMonitoring: the rules are those of deploy/monitoring. The API server here
// does not know their kinds.
func TestChartMonitoring(t *testing.T) {
	t.Parallel()
	rendered, err := helm(t, "--set=apiServer=https://api:6443", "--set=monitoring.podMonitor=true", "--set=monitoring.rules=true",
		"--set=config.metricsBindAddress=0.0.0.0:10249", "--set=monitoring.labels.release=prometheus", "--show-only=templates/monitoring.yaml")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]map[string]any)
	for _, doc := range documents(rendered) {
		var object map[string]any
		if err := yaml.UnmarshalStrict([]byte(doc), &object); err != nil {
			t.Fatal(err)
		}
		found[object["kind"].(string)] = object
		if labels := object["metadata"].(map[string]any)["labels"].(map[string]any); labels["release"] != "prometheus" {
			t.Errorf("%s has labels %v", object["kind"], labels)
		}
	}
	text, err := os.ReadFile(deploy + "/monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want any
	if err := yaml.UnmarshalStrict(text, &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, found["PrometheusRule"]["spec"]); d != "" || found["PodMonitor"] == nil {
		t.Errorf("rules (-deploy/monitoring +chart):\n%s", d)
	}
}

// TestChartLint: helm itself has nothing against it.
func TestChartLint(t *testing.T) {
	t.Parallel()
	if out, err := run(t, "", os.Getenv(helmEnv), "lint", "--strict", chart, "--set=apiServer=https://api:6443"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestPlain: deploy/kube-nft.yaml is the base.
func TestPlain(t *testing.T) {
	t.Parallel()
	const path = deploy + "/kube-nft.yaml"
	want := "# Made from deploy/kustomize/base by `make update`, where the comments are. EDIT the API\n" +
		"# server's address (apiServer) and the image, then kubectl apply -f: docs/install.md.\n" + ways[0].kustomize(t)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("%s is not what `make update` makes (-want +got):\n%s", path, d)
	}
}

// TestConfig: kube-proxy itself takes each configuration, and knows every field of it;
// so does kube-nft, for which none of them is idle. kubeadm's is as it is.
func TestConfig(t *testing.T) {
	kubeProxy := program(t, cluster.Proxy)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			object := objects(t, w.kustomize(t))["ConfigMap kube-system/kube-nft"]
			if w.name == "kubeadm" {
				text, err := os.ReadFile("testdata/kubeadm.yaml")
				if err != nil {
					t.Fatal(err)
				}
				object = objects(t, string(text))["ConfigMap kube-system/kube-proxy"]
			}
			text := object.(*corev1.ConfigMap).Data["config.conf"]
			c, unknown, err := config.Decode([]byte(text))
			if err != nil || len(unknown) > 0 {
				t.Fatalf("unknown fields %v, %v", unknown, err)
			}
			config.SetDefaults(c)
			for _, note := range config.Notes(c) {
				t.Errorf("%s %s has no effect: %s", note.Field, note.Value, note.Why)
			}
			checkKubeProxy(t, kubeProxy, text)
		})
	}
}

// checkKubeProxy has kube-proxy read a configuration, and no more.
func checkKubeProxy(t *testing.T, path, config string) {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "config.conf"), filepath.Join(dir, "out.conf")
	if err := os.WriteFile(in, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	said, err := run(t, "", "/bin/sh", "-c", fmt.Sprintf("%s --config=%s --write-config-to=%s 2>&1", path, in, out))
	if err != nil || strings.Contains(said, "strict") || strings.Contains(said, "unknown field") {
		t.Errorf("kube-proxy: %v\n%s", err, said)
	}
	if _, err := os.Stat(out); err != nil {
		t.Error(err)
	}
}

// TestVerbs: the account may do what the program asks for, and nothing else.
func TestVerbs(t *testing.T) {
	t.Parallel()
	read, write := []string{"list", "watch"}, []string{"create", "patch"}
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: read},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: read},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: read},
		{APIGroups: []string{"events.k8s.io"}, Resources: []string{"events"}, Verbs: write},
	}
	role := objects(t, ways[0].kustomize(t))["ClusterRole kube-nft"].(*rbacv1.ClusterRole)
	if d := cmp.Diff(want, role.Rules); d != "" {
		t.Errorf("rules (-want +got):\n%s", d)
	}
}

// TestPrivileges: each container has CAP_NET_ADMIN alone, and writes no file of its
// own; only what sets kernel parameters, once, has something of the node's.
func TestPrivileges(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			pod := objects(t, w.kustomize(t))["DaemonSet kube-system/kube-nft"].(*appsv1.DaemonSet).Spec.Template.Spec
			no, yes, root := false, true, int64(0)
			want := &corev1.SecurityContext{
				RunAsUser: &root, Privileged: &no, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			}
			if d := cmp.Diff(want, pod.Containers[0].SecurityContext); d != "" || len(pod.Containers) != 1 {
				t.Errorf("%d containers; the first (-want +got):\n%s", len(pod.Containers), d)
			}
			for _, c := range pod.InitContainers {
				if c.Args[1] != "--init-only" || len(pod.InitContainers) != 1 {
					t.Errorf("%d init containers, with arguments %v", len(pod.InitContainers), c.Args)
				}
				if d := cmp.Diff(want, c.SecurityContext); d != "" {
					t.Errorf("init container (-want +got):\n%s", d)
				}
			}
			for _, v := range pod.Volumes {
				if v.ConfigMap == nil && (v.HostPath == nil || v.HostPath.Path != "/proc/sys/net" || len(pod.InitContainers) == 0) {
					t.Errorf("volume %s is more than a ConfigMap, and not what sets parameters needs", v.Name)
				}
			}
			for _, m := range pod.Containers[0].VolumeMounts {
				if m.Name == "sysctl" || !m.ReadOnly {
					t.Errorf("mount %s: of what runs all the time", m.Name)
				}
			}
			if pod.HostPID || pod.HostIPC || !pod.HostNetwork {
				t.Errorf("host's PIDs %t, IPC %t, network %t", pod.HostPID, pod.HostIPC, pod.HostNetwork)
			}
		})
	}
}

// objects decodes a stream of YAML documents, by kind, namespace and name.
func objects(t *testing.T, text string) map[string]runtime.Object {
	t.Helper()
	all := make(map[string]runtime.Object)
	for _, doc := range documents(text) {
		var meta metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &meta); err != nil {
			t.Fatal(err)
		}
		object, err := scheme.Scheme.New(meta.GroupVersionKind())
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), object); err != nil {
			t.Fatalf("%s: %v\n%s", meta.Kind, err, doc)
		}
		name := object.(metav1.Object).GetName()
		if ns := object.(metav1.Object).GetNamespace(); ns != "" {
			name = ns + "/" + name
		}
		normalize(t, object)
		all[meta.Kind+" "+name] = object
	}
	return all
}

// normalize removes what does not count: comments and order within a configuration, and
// lists that are empty.
func normalize(t *testing.T, object runtime.Object) {
	t.Helper()
	switch o := object.(type) {
	case *corev1.ConfigMap:
		o.Data = maps.Clone(o.Data)
		for name, text := range o.Data {
			var fields any
			if err := yaml.UnmarshalStrict([]byte(text), &fields); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			sorted, err := yaml.Marshal(fields)
			if err != nil {
				t.Fatal(err)
			}
			o.Data[name] = string(sorted)
		}
	case *appsv1.DaemonSet:
		if pod := &o.Spec.Template.Spec; len(pod.InitContainers) == 0 {
			pod.InitContainers = nil
		}
	}
}

// documents splits a stream of YAML documents, and leaves out the empty ones.
func documents(text string) (docs []string) {
	for doc := range strings.SplitSeq("\n"+text, "\n---\n") {
		var fields map[string]any
		if yaml.Unmarshal([]byte(doc), &fields) != nil || len(fields) > 0 {
			docs = append(docs, doc)
		}
	}
	return docs
}
