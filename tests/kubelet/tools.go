// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Tools is a directory with the programs that a Kubelet is made of besides those of
// the distribution; see Build.
type Tools string

// pauseName is the image that containerd makes a pod's namespaces with.
const pauseName = "localhost/pause:test"

func (t Tools) cri() string        { return filepath.Join(string(t), "cri") }
func (t Tools) pauseImage() string { return filepath.Join(string(t), "pause.tar") }

// Build makes the tools; the directory exists. It wants root, and the network if the
// module cache lacks something. An error says so if a program of the distribution is
// missing.
func (t Tools) Build(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("containers need root")
	}
	for _, name := range []string{"buildah", "containerd", "containerd-shim-runc-v2", "ctr", "runc"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	pause := filepath.Join(string(t), "pause") // what goes into the image
	if err := t.buildPrograms(ctx, filepath.Join(pause, "pause")); err != nil {
		return fmt.Errorf("build the tools of the kubelet: %w", err)
	}
	file := filepath.Join(pause, "Dockerfile")
	if err := os.WriteFile(file, []byte("FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n"), 0o644); err != nil {
		return err
	}
	return BuildImage(ctx, Image{Name: pauseName, Dockerfile: file, Context: pause}, t.pauseImage())
}

func (t Tools) buildPrograms(ctx context.Context, pause string) error {
	root, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}"))
	if err != nil {
		return err
	}
	for _, build := range []struct{ module, pkg, to string }{
		{root, "./tests/kubelet/pause", pause},
		{filepath.Join(root, "tests", "kubernetes"), "./cri", t.cri()},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-C", build.module, "-trimpath", "-buildvcs=false", "-o", build.to, build.pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if _, err := output(cmd); err != nil {
			return err
		}
	}
	return nil
}

// output returns the first line that a command prints; the error has all that it
// said.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", cmd, err, out, stderr.Bytes())
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	return string(line), nil
}
