// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// Section is what a command of this program measures inside, into a file of results.
type Section struct {
	Name string   // of its rows
	Args []string // of the command, which takes --out as well
	File string   // that the command writes
}

// Config says what to measure and how.
type Config struct {
	Kernel   string // see Find and Build
	Word     string // the command of this program that calls Init
	Sections []Section
	Limit    time.Duration // of each section, with the boot
	Output   io.Writer     // of the console
	Log      *slog.Logger
}

// lookIn is where programs are inside, whatever the PATH of who runs this.
const lookIn = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// programs are what runs inside besides what is built, and the package of each.
var programs = []struct{ program, pkg string }{
	{"ip", "iproute2"}, {"ipset", "ipset"}, {"ipvsadm", "ipvsadm"}, {"nft", "nftables"},
	{"nsenter", "util-linux"}, {"xtables-legacy-multi", "iptables"},
}

// Missing returns the packages that a measurement of IPVS wants and the host lacks.
func Missing() (packages []string) {
	for _, p := range programs {
		if !installed(p.program) {
			packages = append(packages, p.pkg)
		}
	}
	return packages
}

func installed(program string) bool {
	for dir := range strings.SplitSeq(lookIn, ":") {
		if _, err := exec.LookPath(filepath.Join(dir, program)); err == nil {
			return true
		}
	}
	return false
}

// Measure runs each section in a machine of its own and adds what it found to the file.
// What could not be measured is in there, too; an error says that nothing more can be.
func (c Config) Measure(ctx context.Context, f *result.File) error {
	cpu := f.Host.CPU
	for _, s := range c.Sections {
		got, err := c.measure(ctx, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			c.Log.Error("measuring inside user-mode Linux", "section", s.Name, "err", err)
			f.Skip(result.Skip{Section: s.Name, Proxy: "ipvs", What: "user-mode Linux", Why: err.Error()})
		}
		if got.Host.Kernel != "" {
			f.Host = got.Host
			f.Host.CPU = cpu // which has no name inside
		}
		f.Rows = append(f.Rows, got.Rows...)
		f.Skipped = append(f.Skipped, got.Skipped...)
	}
	return nil
}

// environ is that of a job: the host's with another PATH. Where a variable is twice the
// first counts.
func environ(host []string) []string {
	others := slices.DeleteFunc(slices.Clone(host), func(kv string) bool { return strings.HasPrefix(kv, "PATH=") })
	return append(others, "PATH="+lookIn)
}

// measure runs one section. There may be rows and an error.
func (c Config) measure(ctx context.Context, s Section) (got result.File, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.Limit, fmt.Errorf("not done after %v", c.Limit))
	defer cancel()
	share, err := os.MkdirTemp("", "kube-nft-share-")
	if err != nil {
		return got, err
	}
	defer os.RemoveAll(share)
	m, err := NewMachine(c.Kernel, c.Word, share, c.Output)
	if err != nil {
		return got, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return got, err
	}
	job := Job{
		Args: append(append([]string{m.Init[0]}, s.Args...), "--out", share),
		Env:  environ(os.Environ()),
		Dir:  dir,
	}
	c.Log.Info("starting user-mode Linux", "section", s.Name, "memory_mb", m.Memory>>20)
	code, err := m.Run(ctx, job)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s: exit code %d", strings.Join(job.Args[1:], " "), code)
	}
	got, loaded := result.Load(filepath.Join(share, s.File))
	if errors.Is(loaded, fs.ErrNotExist) && err != nil {
		loaded = nil // the error says why
	}
	return got, errors.Join(err, loaded)
}
