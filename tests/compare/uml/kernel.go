// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/kube-nft/kube-nft/tests/cluster"
)

// series is the kernel's; sourcePackage is Debian's package of its source.
const (
	series        = "6.12"
	sourcePackage = "linux-source-" + series
)

//go:embed kernel.config
var fragment string

// patch is one change of the source: a line of a file, as a regular expression, and
// what it becomes.
type patch struct{ file, from, to string }

// patches are what this kernel needs beyond its configuration. What a processor saves
// of its extended state in a signal's frame is 2,696 bytes with AVX-512 and 11,008 with
// AMX; with more than the kernel has room for it panics.
var patches = []patch{{
	file: "arch/x86/um/user-offsets.c",
	from: `DEFINE_LONGS\(HOST_FP_SIZE, \d+\);`,
	to:   `DEFINE_LONGS(HOST_FP_SIZE, 16384);`,
}}

// ErrNoKernel is returned by Find where none was built.
var ErrNoKernel = errors.New("no kernel of user-mode Linux in the cache")

// Path returns where the kernel is, or is to be: another configuration is another file.
func Path() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Append(nil, fragment, patches))
	return filepath.Join(cache, "kube-nft", fmt.Sprintf("uml-%s-%x", series, sum[:4]), "linux"), nil
}

// Find returns the path of the kernel, or ErrNoKernel.
func Find() (string, error) {
	path, err := Path()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %s", ErrNoKernel, path)
	} else if err != nil {
		return "", err
	}
	return path, nil
}

// tools are what Build calls, and the package of Debian that has each.
var tools = []struct{ program, pkg string }{
	{"apt-get", "apt"}, {"bc", "bc"}, {"bison", "bison"}, {"dpkg-deb", "dpkg"}, {"flex", "flex"}, {"gcc", "gcc"},
	{"make", "make"}, {"tar", "tar"}, {"xz", "xz-utils"},
}

// missing returns the packages of tools that are not there.
func missing(look func(program string) (string, error)) (packages []string) {
	for _, t := range tools {
		if _, err := look(t.program); err != nil {
			packages = append(packages, t.pkg)
		}
	}
	return packages
}

// Build returns the path of the kernel and builds it if it is not there, for which it
// takes about ten minutes, 2 GB of the cache meanwhile, and 150 MB from Debian's archive.
// Any number of processes may call it at once; one of them builds.
func Build(ctx context.Context, log *slog.Logger) (string, error) {
	path, err := Path()
	if err != nil {
		return "", err
	}
	err = cluster.Provide(ctx, log, "user-mode Linux "+series, path, func(ctx context.Context, path string) error {
		if runtime.GOARCH != "amd64" {
			return fmt.Errorf("user-mode Linux is not for %s", runtime.GOARCH)
		}
		if packages := missing(exec.LookPath); len(packages) > 0 {
			return fmt.Errorf("not installed: %s", strings.Join(packages, " "))
		}
		return build(ctx, path)
	})
	if err != nil {
		return "", fmt.Errorf("build user-mode Linux: %w", err)
	}
	return path, nil
}

// build makes the kernel in the directory of path, which is its own.
func build(ctx context.Context, path string) error {
	dir := filepath.Dir(path)
	source, err := unpack(ctx, dir)
	if err != nil {
		return err
	}
	for _, p := range patches {
		if err := p.apply(source); err != nil {
			return err
		}
	}
	config := filepath.Join(dir, "fragment")
	if err := os.WriteFile(config, []byte(fragment), 0o644); err != nil {
		return err
	}
	object := filepath.Join(dir, "object")
	command := []string{"make", "-s", "-C", source, "ARCH=um", "O=" + object}
	if err := run(ctx, dir, slices.Concat(command, []string{"KCONFIG_ALLCONFIG=" + config, "allnoconfig"})...); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(object, ".config"))
	if err != nil {
		return err
	}
	if lost := refused(fragment, string(got)); len(lost) > 0 {
		return fmt.Errorf("configure: the kernel does not take %s", strings.Join(lost, " "))
	}
	if err := run(ctx, dir, slices.Concat(command, []string{fmt.Sprintf("-j%d", runtime.NumCPU()), "linux"})...); err != nil {
		return err
	}
	return os.Rename(filepath.Join(object, "linux"), path)
}

// unpack fetches the source and returns its directory. Nothing is installed.
func unpack(ctx context.Context, dir string) (string, error) {
	if err := run(ctx, dir, "apt-get", "-qq", "download", sourcePackage); err != nil {
		return "", fmt.Errorf("%w\n(apt-get update may help; the package is of Debian 13, and of Debian 12's security archive)", err)
	}
	const script = `dpkg-deb --fsys-tarfile "$0"_*.deb | tar -xO "./usr/src/$0.tar.xz" | xz -dc | tar -x`
	if err := run(ctx, dir, "bash", "-o", "pipefail", "-c", script, sourcePackage); err != nil {
		return "", err
	}
	return filepath.Join(dir, sourcePackage), nil
}

// apply changes the source.
func (p patch) apply(source string) error {
	path := filepath.Join(source, p.file)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	from := regexp.MustCompile(p.from)
	if n := len(from.FindAllIndex(text, -1)); n != 1 {
		return fmt.Errorf("patch %s: %d lines match %s, want 1", p.file, n, p.from)
	}
	return os.WriteFile(path, from.ReplaceAllLiteral(text, []byte(p.to)), 0o644)
}

// refused returns the options that a fragment asks for and a configuration is without:
// one that lacks what it depends on goes without a word.
func refused(fragment, config string) (lost []string) {
	has := make(map[string]bool)
	for line := range strings.Lines(config) {
		has[strings.TrimSpace(line)] = true
	}
	for line := range strings.Lines(fragment) {
		line = strings.TrimSpace(line)
		name, off := strings.CutSuffix(strings.TrimPrefix(line, "# "), " is not set")
		switch {
		case off && has[name+"=y"]:
			lost = append(lost, name+"=n")
		case strings.HasPrefix(line, "CONFIG_") && !has[line]:
			lost = append(lost, line)
		}
	}
	return lost
}

// run runs a program in a directory, and ends it with all that it started. An error has
// the end of what it wrote.
func run(ctx context.Context, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, lastBytes(out, 4000))
	}
	return nil
}

// lastBytes returns the end of a text.
func lastBytes(text []byte, n int) []byte {
	return text[max(0, len(text)-n):]
}
