// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// programEnv tells the isolated process where the kube-nft to test is. It may be set
// from outside.
const programEnv = "KUBE_NFT_PROGRAM"

// TestProgram: kube-nft takes the command line of each container, with the configuration
// of its ConfigMap, and finds nothing to warn of. It ends there: with a kernel and packets
// it is run elsewhere.
func TestProgram(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			all := objects(t, w.kustomize(t))
			pod := all["DaemonSet kube-system/kube-nft"].(*appsv1.DaemonSet).Spec.Template.Spec
			name := pod.Volumes[0].ConfigMap.Name
			if w.name == "kubeadm" {
				text, err := os.ReadFile("testdata/kubeadm.yaml")
				if err != nil {
					t.Fatal(err)
				}
				all = objects(t, string(text))
			}
			config := all["ConfigMap kube-system/"+name].(*corev1.ConfigMap).Data
			for _, c := range append(pod.InitContainers, pod.Containers...) {
				checkArgs(t, c, config)
			}
		})
	}
}

// checkArgs runs a container's command on files as they are in its volume.
func checkArgs(t *testing.T, c corev1.Container, config map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range config {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	expand := strings.NewReplacer("$(NODE_NAME)", "node-1", "$(API_SERVER)", config["apiServer"], c.VolumeMounts[0].MountPath, dir)
	var args []string
	for _, a := range c.Args {
		args = append(args, expand.Replace(a))
	}
	out := filepath.Join(dir, "written.conf")
	said, err := run(t, "", "/bin/sh", append([]string{"-c", `exec "$0" "$@" 2>&1`, os.Getenv(programEnv)}, append(args, "--write-config-to="+out)...)...)
	if err != nil || strings.Contains(said, "level=WARN") || strings.Contains(said, "level=ERROR") {
		t.Errorf("%s %s: %v\n%s", path.Base(c.Command[0]), strings.Join(args, " "), err, said)
	}
	if _, err := os.Stat(out); err != nil {
		t.Error(err)
	}
}
