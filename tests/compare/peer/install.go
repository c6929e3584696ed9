// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kube-nft/kube-nft/tests/cluster"
)

// programEnv tells an isolated process which kube-nft to start; set from outside, it
// is that one. See also package tests/process.
const programEnv = "KUBE_NFT_PROGRAM"

// Use has a kube-nft compared that exists, and not one that is built.
func Use(kubeNFT string) error {
	path, err := filepath.Abs(kubeNFT)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath(path); err != nil {
		return fmt.Errorf("--kube-nft: %w", err)
	}
	return os.Setenv(programEnv, path)
}

// BuildKubeNFT builds that of the checkout, unless there is one to use, and returns
// what removes it again.
func BuildKubeNFT(ctx context.Context) (remove func(), err error) {
	if os.Getenv(programEnv) != "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "kube-nft-")
	if err != nil {
		return nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	path := filepath.Join(dir, "kube-nft")
	if err := buildKubeNFT(ctx, path); err != nil {
		remove()
		return nil, err
	}
	return remove, os.Setenv(programEnv, path)
}

// buildKubeNFT builds in the main module, wherever in the repository this runs.
func buildKubeNFT(ctx context.Context, path string) error {
	const module = "github.com/kube-nft/kube-nft"
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return fmt.Errorf("find sources of kube-nft: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-C", string(bytes.TrimSpace(root)), "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/kube-nft")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build kube-nft: %w\n%s", err, bytes.TrimSpace(out))
	}
	return nil
}

// Program returns the path of the peer's program. That of kube-proxy is built, which
// takes minutes, unless it is in the cache.
func (p Peer) Program(ctx context.Context, log *slog.Logger) (string, error) {
	if p.Module == "" {
		if path := os.Getenv(programEnv); path != "" {
			return path, nil
		}
		return "", fmt.Errorf("%s is not built", p.Name)
	}
	paths, err := cluster.BuildFrom(ctx, log, p.Module, cluster.Proxy)
	if err != nil {
		return "", err
	}
	return paths[0], nil
}

// Version is the name of the peer's program, which others may have in common with it,
// and what that says of its version; empty is nothing.
func (p Peer) Version(ctx context.Context, log *slog.Logger) (program, version string) {
	program, arg := "kube-proxy", "--version"
	switch p.Module {
	case "":
		program, arg = "kube-nft", "version"
	case older:
		program = filepath.Base(older)
	}
	path, err := p.Program(ctx, log)
	if err != nil {
		return program, ""
	}
	out, err := exec.CommandContext(ctx, path, arg).Output()
	if err != nil {
		return program, ""
	}
	_, version, _ = strings.Cut(strings.TrimSpace(string(out)), " ")
	version, _, _ = strings.Cut(version, " go1")
	return program, version
}
