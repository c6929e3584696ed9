// SPDX-License-Identifier: Apache-2.0

// Package image tests what is deployed as it is deployed: the last stage of the
// Dockerfile, built by buildah, in the DaemonSet of deploy/kustomize/base, which
// kubectl applies to a real API server and containerd runs on a node that is a network
// namespace. What it may do is what the manifest lets it do; what it does is shown
// with packets.
package image

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/kubelet"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// These tell the isolated process where things are.
const (
	dirEnv     = "IMAGE_TEST_DIR"
	kubectlEnv = "IMAGE_TEST_KUBECTL"
)

// In the directory of dirEnv.
func tools() kubelet.Tools { return kubelet.Tools(filepath.Join(os.Getenv(dirEnv), "tools")) }
func stage() string        { return filepath.Join(os.Getenv(dirEnv), "stage") }

// TestMain builds outside the namespaces of netlab, where the network is.
func TestMain(m *testing.M) {
	if netlab.Isolated() {
		os.Exit(m.Run())
	}
	code, err := 0, prepare(context.Background())
	if err == nil {
		code, err = netlab.Isolate(os.Args)
	}
	_ = os.RemoveAll(os.Getenv(dirEnv)) // temporary
	if err != nil {
		netlab.GiveUp(err)
	}
	os.Exit(code)
}

func prepare(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "kube-nft-image-")
	if err != nil {
		return err
	}
	if err := os.Setenv(dirEnv, dir); err != nil {
		return err
	}
	if err := os.Mkdir(string(tools()), 0o755); err != nil {
		return err
	}
	if err := tools().Build(ctx); err != nil {
		return err
	}
	programs, err := cluster.Build(ctx, slog.Default(), cluster.Kubectl, cluster.Etcd, cluster.APIServer)
	if err != nil {
		return err
	}
	if err := os.Setenv(kubectlEnv, programs[0]); err != nil {
		return err
	}
	return buildStage(ctx)
}

// root is the directory of the source tree.
var root = filepath.Join("..", "..")

// buildStage does what the Dockerfile's first stage does, and makes a directory that
// stands for the stage: it has the program where the last stage looks for it.
func buildStage(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "make", "-C", root, "build").CombinedOutput(); err != nil {
		return fmt.Errorf("make build: %w\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(root, "bin", "kube-nft"))
	if err != nil {
		return err
	}
	at := filepath.Join(stage(), "src", "bin")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(at, "kube-nft"), text, 0o755)
}

// build builds the image and returns a docker-archive of it.
func build(t *testing.T) string {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "kube-nft.tar")
	err := kubelet.BuildImage(t.Context(), kubelet.Image{
		Name:       imageName,
		Dockerfile: filepath.Join(root, "Dockerfile"),
		Context:    root,
		Stages:     map[string]string{"build": stage()},
	}, archive)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}
