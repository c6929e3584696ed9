// SPDX-License-Identifier: Apache-2.0

package kubelet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Image is what to build an image from.
type Image struct {
	Name       string // registry/repository:tag
	Dockerfile string
	Context    string
	// Stages are directories in place of stages of the Dockerfile, or of images that
	// it begins with: what is copied from the stage comes from the directory, and the
	// stage is not built.
	Stages map[string]string
}

// BuildImage builds an image with buildah, and writes it to a docker-archive, which
// takes its place: buildah's own storage is gone afterwards. An image from a registry
// cannot be had. Nothing that a Dockerfile runs is kept from the machine.
func BuildImage(ctx context.Context, image Image, archive string) error {
	dir, err := os.MkdirTemp("", "kube-nft-buildah-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	storage := []string{
		"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
		"--storage-driver", "vfs", // works on every file system
	}
	build := append(storage, "build", "--isolation", "chroot", "--pull-never",
		"--tag", image.Name, "--file", image.Dockerfile)
	for stage, from := range image.Stages {
		build = append(build, "--build-context", stage+"="+from)
	}
	push := append(storage, "push", image.Name, "docker-archive:"+archive+":"+image.Name)
	for _, args := range [][]string{append(build, image.Context), push} {
		cmd := apart(ctx, "buildah", args...)
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		if _, err := output(cmd); err != nil {
			return fmt.Errorf("build image %s: %w", image.Name, err)
		}
	}
	return nil
}

// apart makes a command that sees the machine's files and leaves nothing in the
// directories where programs of containers keep their state: they are empty, and
// gone with the command.
func apart(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", emptied + `exec "$@"`, "sh", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS} // with private mounts
	return cmd
}

// emptied is the beginning of a script, for a mount namespace of its own.
const emptied = "for dir in /run /var/lib /var/cache; do mount -t tmpfs tmpfs $dir || exit; done\n"
