// SPDX-License-Identifier: Apache-2.0

package result

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
)

// NewHost returns the facts of this machine, with the versions of Go and of the tools
// that are in the PATH. Those of the proxies are the caller's to add.
func NewHost() Host {
	h := Host{
		Kernel: strings.TrimSpace(read("/proc/sys/kernel/osrelease")),
		CPU:    field(read("/proc/cpuinfo"), "model name"),
		Cores:  runtime.NumCPU(),
		UML:    strings.HasPrefix(field(read("/proc/cpuinfo"), "vendor_id"), "User Mode Linux"),
		Versions: map[string]string{
			"go": runtime.Version(),
		},
	}
	kb, _, _ := strings.Cut(field(read("/proc/meminfo"), "MemTotal"), " ")
	total, _ := strconv.Atoi(kb) // nothing is a fact like any other
	h.MemoryMB = total / 1024
	for name, args := range map[string][]string{
		"nft": {"nft", "--version"}, "iptables": {"iptables", "--version"}, "ipset": {"ipset", "--version"},
	} {
		if out, err := exec.Command(args[0], args[1:]...).Output(); err == nil {
			line, _, _ := bytes.Cut(out, []byte("\n"))
			h.Versions[name] = strings.TrimSpace(strings.TrimPrefix(string(line), name))
		}
	}
	return h
}

// Commit returns that of the working directory, with a plus if something is changed.
func Commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return ""
	}
	commit := strings.TrimSpace(string(out))
	if out, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err == nil && len(out) > 0 {
		commit += "+"
	}
	return commit
}

// field returns the value of the first "name : value" line of a file in /proc.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// read returns what a file holds, or nothing.
func read(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}
