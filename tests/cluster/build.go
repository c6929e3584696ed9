// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Program names one of the programs that Build makes.
type Program string

const (
	Etcd              Program = "etcd"
	APIServer         Program = "kube-apiserver"
	ControllerManager Program = "kube-controller-manager"
	Proxy             Program = "kube-proxy"
	Kubectl           Program = "kubectl"
	Kubeadm           Program = "kubeadm"
)

// Programs are all of them.
var Programs = []Program{Etcd, APIServer, ControllerManager, Proxy, Kubectl, Kubeadm}

// Build finds programs in the user's cache directory, and builds there what is
// missing. It returns their paths, in order. To build takes seconds for etcd, minutes
// for those of Kubernetes and, unless the module cache has it all, the network: run it
// before entering an empty network namespace, or with `go run ./tests/cluster/build`.
// Any number of processes may call Build at once; one of them builds.
//
// The versions are those that tests/kubernetes/go.mod names. Build finds that file
// above the working directory, where `go test` leaves it.
func Build(ctx context.Context, log *slog.Logger, programs ...Program) (paths []string, err error) {
	return BuildFrom(ctx, log, newest, programs...)
}

// newest is where the versions are pinned that Build makes.
const newest = "tests/kubernetes"

// BuildFrom is Build with the versions of another module, a directory of this
// repository that has a go.mod: programs of Kubernetes, of any number of versions.
func BuildFrom(ctx context.Context, log *slog.Logger, module string, programs ...Program) (paths []string, err error) {
	for _, p := range programs {
		source, ok := sources[p]
		if !ok {
			return nil, fmt.Errorf("build %s: not one of %v", p, Programs)
		}
		path, err := source.find(ctx, log, module)
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// Binaries are the programs that a Cluster consists of.
type Binaries struct {
	Etcd      string // etcd; one that is too old for streamed lists will do otherwise
	APIServer string // kube-apiserver
	// ControllerManager is wanted by a Cluster with controllers only.
	ControllerManager string
}

// complete fills in what is empty.
func (b Binaries) complete(ctx context.Context, log *slog.Logger, controllers bool) (Binaries, error) {
	for _, want := range []struct {
		path    *string
		program Program
		wanted  bool
	}{{&b.Etcd, Etcd, true}, {&b.APIServer, APIServer, true}, {&b.ControllerManager, ControllerManager, controllers}} {
		if *want.path != "" || !want.wanted {
			continue
		}
		paths, err := Build(ctx, log, want.program)
		if err != nil {
			return b, err
		}
		*want.path = paths[0]
	}
	return b, nil
}

// program is one that is built from tests/kubernetes, or another module like it.
type program struct {
	name    Program
	module  string                      // the one whose version is the program's
	path    string                      // of its main package
	ldflags func(version string) string // besides those that all have; nil = none
}

var sources = map[Program]program{
	Etcd:              {name: Etcd, module: "go.etcd.io/etcd/server/v3", path: "./etcd"},
	APIServer:         {name: APIServer, module: kubernetes, path: kubernetes + "/cmd/kube-apiserver", ldflags: versionFlags},
	ControllerManager: {name: ControllerManager, module: kubernetes, path: kubernetes + "/cmd/kube-controller-manager", ldflags: versionFlags},
	Proxy:             {name: Proxy, module: kubernetes, path: kubernetes + "/cmd/kube-proxy", ldflags: versionFlags},
	Kubectl:           {name: Kubectl, module: kubernetes, path: kubernetes + "/cmd/kubectl", ldflags: versionFlags},
	Kubeadm:           {name: Kubeadm, module: kubernetes, path: kubernetes + "/cmd/kubeadm", ldflags: versionFlags},
}

const kubernetes = "k8s.io/kubernetes"

// versionFlags set what a program says that it is; without them that is
// v0.0.0-master, which clients of the server take at its word.
func versionFlags(version string) string {
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	const variable = " -X k8s.io/component-base/version."
	return variable + "gitVersion=" + version + variable + "gitMajor=" + major + variable + "gitMinor=" + minor
}

// find returns the path of the program, which exists.
func (p program) find(ctx context.Context, log *slog.Logger, module string) (string, error) {
	source, err := findSource(module)
	if err != nil {
		return "", err
	}
	mod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	version, err := required(mod, p.module)
	if err != nil {
		return "", fmt.Errorf("read %s/go.mod: %w", source, err)
	}
	path, err := p.cached(mod, version)
	if err != nil {
		return "", fmt.Errorf("find a place for %s: %w", p.name, err)
	}
	if err := p.provide(ctx, log, source, version, path); err != nil {
		return "", fmt.Errorf("build %s %s: %w", p.name, version, err)
	}
	return path, nil
}

// cached returns where the program is, or is to be: all programs of a version of
// Kubernetes are in one directory, and one that has versions of its own carries it
// in its name.
func (p program) cached(mod []byte, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	of, err := required(mod, kubernetes)
	if err != nil {
		return "", err
	}
	name := string(p.name)
	if p.module != kubernetes {
		name += "-" + version
	}
	return filepath.Join(cache, "kube-nft", "kubernetes-"+of, name), nil
}

// provide makes sure that the program is at path.
func (p program) provide(ctx context.Context, log *slog.Logger, source, version, path string) error {
	return Provide(ctx, log, string(p.name)+" "+version, path, func(ctx context.Context, path string) error {
		return p.build(ctx, source, version, path)
	})
}

// Provide makes sure that a program is at path, as Build does: if it is not, build
// makes it at another path, in a directory of its own that goes away with all else
// that is in it.
func Provide(ctx context.Context, log *slog.Logger, name, path string, build func(ctx context.Context, path string) error) error {
	if exists(path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, log, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if exists(path) { // whoever held the lock built it
		return nil
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	log.Info("building, which may take minutes", "program", name, "path", path)
	began := time.Now()
	made := filepath.Join(dir, filepath.Base(path))
	if err := build(ctx, made); err != nil {
		return err
	}
	if err := os.Rename(made, path); err != nil {
		return err
	}
	log.Info("built", "program", name, "duration", time.Since(began).Round(time.Second))
	return nil
}

func (p program) build(ctx context.Context, source, version, path string) error {
	flags := "-s -w"
	if p.ldflags != nil {
		flags += p.ldflags(version)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-C", source, "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", path, p.path)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, tail(out, 50))
	}
	return nil
}

// findSource returns the directory of the module that the programs are built from.
func findSource(module string) (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		source := filepath.Join(dir, filepath.FromSlash(module))
		if exists(filepath.Join(source, "go.mod")) {
			return source, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find %s/go.mod above %s: %w", module, start, fs.ErrNotExist)
		}
	}
}

// required returns the version of a module that a go.mod requires.
func required(mod []byte, module string) (string, error) {
	lines := bufio.NewScanner(bytes.NewReader(mod))
	for lines.Scan() {
		fields := strings.Fields(strings.TrimPrefix(lines.Text(), "require "))
		if len(fields) >= 2 && fields[0] == module && strings.HasPrefix(fields[1], "v") {
			return fields[1], nil
		}
	}
	return "", fmt.Errorf("no requirement of %s", module)
}

// lock waits for the exclusive lock on the file at path, which it leaves behind:
// a lock file that goes away can be locked twice.
func lock(ctx context.Context, log *slog.Logger, path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	waiting := false
	err = poll(ctx, time.Second, func() (bool, error) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err == nil, err
		}
		if !waiting {
			log.Info("waiting for another process to build", "lock", path)
			waiting = true
		}
		return false, nil
	})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f.Close, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// poll calls done until it returns true or an error, or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// tail returns the last lines of text.
func tail(text []byte, lines int) []byte {
	at := len(text)
	for ; lines >= 0 && at >= 0; lines-- {
		at = bytes.LastIndexByte(text[:at], '\n')
	}
	return text[at+1:]
}
