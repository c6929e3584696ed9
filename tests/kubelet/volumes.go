// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
)

// accountPath is where a pod finds its service account.
const accountPath = "/var/run/secrets/kubernetes.io/serviceaccount"

// volumes provides a pod's volumes below dir, and returns where each is.
func (k *Kubelet) volumes(ctx context.Context, pod *corev1.Pod, dir string) (map[string]string, error) {
	paths := make(map[string]string)
	for _, v := range pod.Spec.Volumes {
		path := filepath.Join(dir, v.Name)
		if v.HostPath != nil {
			path = v.HostPath.Path
		}
		paths[v.Name] = path
		if err := k.volume(ctx, pod, v, path); err != nil {
			return nil, fmt.Errorf("volume %s of pod %s: %w", v.Name, pod.Name, err)
		}
	}
	return paths, nil
}

func (k *Kubelet) volume(ctx context.Context, pod *corev1.Pod, v corev1.Volume, path string) error {
	switch {
	case v.HostPath != nil:
		_, err := os.Stat(path)
		return err
	case v.EmptyDir != nil:
		return os.MkdirAll(path, 0o777)
	case v.ConfigMap != nil:
		m, err := find[corev1.ConfigMap](ctx, k, pod.Namespace, "configmaps", v.ConfigMap.Name)
		if err != nil {
			return err
		}
		return writeConfigMap(path, m, v.ConfigMap.Items)
	}
	return errors.New("of a kind that is not provided here")
}

func writeConfigMap(dir string, m *corev1.ConfigMap, items []corev1.KeyToPath) error {
	files := make(map[string]string)
	if items == nil {
		files = m.Data
	}
	for _, item := range items {
		text, ok := m.Data[item.Key]
		if !ok {
			return fmt.Errorf("ConfigMap %s has no key %s", m.Name, item.Key)
		}
		files[item.Path] = text
	}
	return writeFiles(dir, files)
}

func writeFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// account provides the pod's service account: a token for this pod alone, whom to
// trust, and the namespace. It returns where, or nothing if the pod wants none.
func (k *Kubelet) account(ctx context.Context, pod *corev1.Pod, dir string) (path string, err error) {
	if mount := pod.Spec.AutomountServiceAccountToken; mount != nil && !*mount {
		return "", nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: new(int64(3607)),
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	at := fmt.Sprintf("/api/v1/namespaces/%s/serviceaccounts/%s/token", pod.Namespace, pod.Spec.ServiceAccountName)
	if err := k.do(ctx, http.MethodPost, at, request, request); err != nil {
		return "", err
	}
	ca, err := os.ReadFile(k.config.API.CAFile)
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "kube-api-access")
	return path, writeFiles(path, map[string]string{
		"token":     request.Status.Token,
		"ca.crt":    string(ca),
		"namespace": pod.Namespace,
	})
}

// mounts returns a container's.
func mounts(c *corev1.Container, volumes map[string]string, account string) (all []mount) {
	for _, m := range c.VolumeMounts {
		all = append(all, mount{ContainerPath: m.MountPath, HostPath: volumes[m.Name], Readonly: m.ReadOnly})
	}
	taken := func(m mount) bool { return m.ContainerPath == accountPath }
	if account != "" && !slices.ContainsFunc(all, taken) {
		all = append(all, mount{ContainerPath: accountPath, HostPath: account, Readonly: true})
	}
	return all
}

// environment returns a container's, which begins with how to reach the API through
// its Service: every pod has that.
func (k *Kubelet) environment(ctx context.Context, pod *corev1.Pod, c *corev1.Container) ([]keyPair, error) {
	service, err := find[corev1.Service](ctx, k, "default", "services", "kubernetes")
	if err != nil {
		return nil, err
	}
	at := service.Spec.ClusterIP
	port := strconv.Itoa(int(service.Spec.Ports[0].Port))
	env := []keyPair{{"KUBERNETES_SERVICE_HOST", []byte(at)}, {"KUBERNETES_SERVICE_PORT", []byte(port)}}
	for _, v := range c.Env {
		value := expand(v.Value, env)
		if v.ValueFrom != nil {
			if value, err = k.value(ctx, pod, v.ValueFrom); err != nil {
				return nil, fmt.Errorf("variable %s of container %s: %w", v.Name, c.Name, err)
			}
		}
		env = append(env, keyPair{v.Name, []byte(value)})
	}
	return env, nil
}

func (k *Kubelet) value(ctx context.Context, pod *corev1.Pod, from *corev1.EnvVarSource) (string, error) {
	if ref := from.ConfigMapKeyRef; ref != nil {
		m, err := find[corev1.ConfigMap](ctx, k, pod.Namespace, "configmaps", ref.Name)
		if err != nil {
			return "", err
		}
		text, ok := m.Data[ref.Key]
		if !ok {
			return "", fmt.Errorf("ConfigMap %s has no key %s", ref.Name, ref.Key)
		}
		return text, nil
	}
	if ref := from.FieldRef; ref != nil {
		return field(pod, k.config.Addr, ref.FieldPath)
	}
	return "", errors.New("from where it cannot be had here")
}

// field returns what fieldRef means.
func field(pod *corev1.Pod, addr netip.Addr, path string) (string, error) {
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.podIP":
		return addr.String(), nil
	}
	return "", fmt.Errorf("field %s cannot be had here", path)
}
