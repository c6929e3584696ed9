// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/process"
)

// kubeadmConfig is what an administrator writes for a dual-stack cluster; %[1]s is
// the API server's address, %[2]d its port, %[3]s the addresses of pods.
const kubeadmConfig = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {advertiseAddress: %[1]s, bindPort: %[2]d}
nodeRegistration: {name: node-0, criSocket: "unix:///none.sock"}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
controlPlaneEndpoint: %[1]s:%[2]d
networking: {podSubnet: "%[3]s", serviceSubnet: "10.96.0.0/16,fd00:10:96::/112"}
`

// TestKubeadm starts kube-nft in kube-proxy's place in a cluster that kubeadm has set
// up: with the files of kubeadm's ConfigMap and the arguments of its DaemonSet, both
// unchanged, and as kube-proxy's ServiceAccount, with the role that kubeadm gives it.
func TestKubeadm(t *testing.T) {
	s := newBareSite(t, 2)
	for _, n := range s.nodes {
		s.createNode(n, nil)
	}
	web := s.createPod(s.nodes[1], "web")
	shop := s.createPod(s.nodes[0], "shop")
	service := s.apply("web", "web", "type: NodePort")
	s.kubeadm("init", "phase", "addon", "kube-proxy", "--config", s.writeFile("kubeadm.yaml",
		fmt.Sprintf(kubeadmConfig, s.api.AddrPort.Addr(), s.api.AddrPort.Port(), clusterCIDR)))
	s.checkDefaults(t)

	agent := s.startInPod(s.nodes[0])
	agent.AwaitStatus(soon, readyz, http.StatusOK)
	for f := range families {
		s.Answers(soon, shop.Namespace, "tcp", service.at(f), web.Name())
		s.Answers(soon, s.nodes[0].Namespace, "udp", service.at(f), web.Name())
		s.Answers(soon, s.client, "tcp", service.atNode(s.nodes[0], "tcp", f), web.Name())
	}
	t.Logf("with kubeadm's configuration kube-nft says:\n%s", agent.Text())
	for _, r := range s.requests() {
		if r.User == kubeProxyAccount.Name && r.Code == http.StatusForbidden {
			t.Errorf("kubeadm's role for kube-proxy does not let kube-nft %s %s", r.Verb, r.Resource)
		}
	}
	if len(s.requests()) == 0 {
		t.Errorf("%s has asked for nothing", kubeProxyAccount.Name)
	}
	status, body, err := process.Get(s.nodes[0].Namespace, "http://127.0.0.1:10249/configz")
	s.Must(err)
	if status != http.StatusOK || !strings.Contains(body, clusterCIDR) {
		t.Errorf("/configz: %d %s", status, body)
	}
}

// checkDefaults has kube-nft read what an administrator begins from, kubeadm's defaults,
// which set hardly anything.
func (s *site) checkDefaults(t *testing.T) {
	t.Helper()
	printed := s.kubeadm("config", "print", "init-defaults", "--component-configs", "KubeProxyConfiguration")
	_, printed, _ = strings.Cut(printed, "kind: ClusterConfiguration")
	_, printed, _ = strings.Cut(printed, "---\n")
	if !strings.Contains(printed, "kind: KubeProxyConfiguration") {
		t.Fatalf("kubeadm prints no KubeProxyConfiguration:\n%s", printed)
	}
	path, effective := s.writeFile("config.conf", printed), filepath.Join(t.TempDir(), "effective.yaml")
	out, err := s.nodes[1].Command(t.Context(), process.KubeNFT(), "run", "--config", path, "--write-config-to", effective).CombinedOutput()
	if err != nil {
		t.Errorf("kubeadm's defaults: %v: %s", err, out)
	}
	text, err := os.ReadFile(effective)
	if s.Must(err); !strings.Contains(string(text), "healthzBindAddress: 0.0.0.0:10256") {
		t.Errorf("kubeadm's defaults, completed:\n%s", text)
	}
}

// kubeadm runs it as the administrator, in the control plane's namespace and a mount
// namespace of its own in which it can write no file of the machine.
func (s *site) kubeadm(args ...string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	all := append([]string{"-c", `mount -o remount,bind,ro / && exec "$@"`, "sh", programOf(s.t, cluster.Kubeadm)}, args...)
	if slices.Contains(args, "init") {
		all = append(all, "--kubeconfig", s.api.Kubeconfig(cluster.Admin))
	}
	cmd := s.control.Command(ctx, "unshare", append([]string{"--mount", "sh"}, all...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("kubeadm %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// writeFile writes a file for the test, and returns its path.
func (s *site) writeFile(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), name)
	s.Must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// startInPod starts kube-nft as kubelet would start the pod of kubeadm's DaemonSet,
// but for the program: in a mount namespace of its own, with the files where the pod
// has them. What is the machine's, and not the network namespace's, cannot be written.
func (s *site) startInPod(n *node) *process.Process {
	s.t.Helper()
	var config corev1.ConfigMap
	s.do(http.MethodGet, "/api/v1/namespaces/kube-system/configmaps/kube-proxy", nil, &config)
	files, secrets := s.t.TempDir(), s.t.TempDir()
	for name, text := range config.Data {
		s.Must(os.WriteFile(filepath.Join(files, name), []byte(text), 0o644))
	}
	token, err := s.api.Token(s.t.Context(), "kube-system", "kube-proxy")
	s.Must(err)
	ca, err := os.ReadFile(s.api.CAFile)
	s.Must(err,
		os.WriteFile(filepath.Join(secrets, "token"), []byte(token), 0o600),
		os.WriteFile(filepath.Join(secrets, "ca.crt"), ca, 0o644),
		os.WriteFile(filepath.Join(secrets, "namespace"), []byte("kube-system"), 0o644))

	var set appsv1.DaemonSet
	s.do(http.MethodGet, "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy", nil, &set)
	container := set.Spec.Template.Spec.Containers[0]
	if got := filepath.Base(container.Command[0]); got != "kube-proxy" {
		s.t.Fatalf("kubeadm's DaemonSet runs %v", container.Command)
	}
	args := []string{"--mount", "sh", "-ec", `mount -t tmpfs none /var/lib
mkdir /var/lib/kube-proxy
mount --bind "$1" /var/lib/kube-proxy
mount -t tmpfs none /run
mkdir -p /var/run/secrets/kubernetes.io/serviceaccount
mount --bind "$2" /var/run/secrets/kubernetes.io/serviceaccount
mount -o bind /sys/module /sys/module
mount -o remount,bind,ro /sys/module
shift 2
mount -o remount,bind,ro /
exec "$@"`, "sh", files, secrets, process.KubeNFT(), "run"}
	for _, arg := range container.Command[1:] {
		args = append(args, strings.ReplaceAll(arg, "$(NODE_NAME)", n.Name()))
	}
	return process.Start(s.t, n.Namespace, "unshare", args...)
}
