// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	env := []keyPair{{"A", []byte("1")}, {"B", []byte("two")}, {"A", []byte("3")}}
	for _, tt := range []struct{ name, text, want string }{
		{"none", "text", "text"},
		{"one", "--x=$(B)", "--x=two"},
		{"several", "$(A)$(B)/$(A)", "3two/3"},
		{"unknown", "--x=$(C)", "--x=$(C)"},
		{"escaped", "$$(A)", "$(A)"},
		{"a dollar", "a$b", "a$b"},
		{"at the end", "a$", "a$"},
		{"not closed", "$(A", "$(A"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := expand(tt.text, env); got != tt.want {
				t.Errorf("expand %q: %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

func TestSecurity(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{
		RunAsUser:      new(int64(7)),
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}}}
	base := security{
		NamespaceOptions: hostNamespaces,
		RunAsUser:        &int64Value{7},
		MaskedPaths:      maskedPaths,
		ReadonlyPaths:    readonlyPaths,
		Seccomp:          seccomp{"RuntimeDefault"},
	}
	for _, tt := range []struct {
		name string
		of   *corev1.SecurityContext
		want func(*security)
	}{
		{"the pod's", nil, func(*security) {}},
		{"the container's", &corev1.SecurityContext{
			RunAsUser:                new(int64(0)),
			ReadOnlyRootFilesystem:   new(true),
			AllowPrivilegeEscalation: new(false),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN"}},
			SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
		}, func(s *security) {
			s.RunAsUser = &int64Value{0}
			s.ReadonlyRootfs, s.NoNewPrivs = true, true
			s.Capabilities = &capabilities{Add: []string{"NET_ADMIN"}, Drop: []string{"ALL"}}
			s.Seccomp = seccomp{"Unconfined"}
		}},
		{"privileged", &corev1.SecurityContext{Privileged: new(true)}, func(s *security) { s.Privileged = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := base
			tt.want(&want)
			got := newSecurity(pod, &corev1.Container{SecurityContext: tt.of})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestCheck refuses pods that would not get what they ask for.
func TestCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*corev1.PodSpec)
		want   string // in the error; none = no error
	}{
		{"as it should be", func(*corev1.PodSpec) {}, ""},
		{"no host network", func(s *corev1.PodSpec) { s.HostNetwork = false }, "network"},
		{"host's processes", func(s *corev1.PodSpec) { s.HostPID = true }, "hostPID"},
		{"sidecar", func(s *corev1.PodSpec) {
			s.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}, "container init: restartPolicy"},
		{"unmasked", func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{ProcMount: new(corev1.UnmaskedProcMount)}
		}, "container main: procMount"},
		{"part of a volume", func(s *corev1.PodSpec) {
			s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", SubPath: "x"}}
		}, "mount v"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pod := &corev1.Pod{Spec: corev1.PodSpec{
				HostNetwork:    true,
				InitContainers: []corev1.Container{{Name: "init"}},
				Containers:     []corev1.Container{{Name: "main"}},
			}}
			tt.change(&pod.Spec)
			err := check(pod)
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestField(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", UID: "u"},
		Spec:       corev1.PodSpec{NodeName: "node", ServiceAccountName: "a"},
	}
	got := make(map[string]string)
	for _, path := range []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "metadata.labels"} {
		value, err := field(pod, netip.MustParseAddr("192.0.2.1"), path)
		if err != nil {
			value = "error"
		}
		got[path] = value
	}
	want := map[string]string{
		"metadata.name": "p", "metadata.namespace": "n", "metadata.uid": "u", "spec.nodeName": "node",
		"spec.serviceAccountName": "a", "status.hostIP": "192.0.2.1", "metadata.labels": "error",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
