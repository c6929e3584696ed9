// SPDX-License-Identifier: Apache-2.0

package result

import (
	"os"
	"os/exec"
	"regexp"
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
		UML:    UML(),
		Versions: map[string]string{
			"go": runtime.Version(),
		},
	}
	kb, _, _ := strings.Cut(field(read("/proc/meminfo"), "MemTotal"), " ")
	total, _ := strconv.Atoi(kb) // nothing is a fact like any other
	h.MemoryMB = total / 1024
	for _, name := range []string{"nft", "iptables", "ipset"} {
		if out, err := exec.Command(name, "--version").Output(); err == nil {
			h.Versions[name] = string(version.Find(out))
		}
	}
	return h
}

// version is what a tool calls its version, in whatever it says of itself.
var version = regexp.MustCompile(`v[0-9][0-9.]*`)

// UML reports whether this is user-mode Linux.
func UML() bool {
	return strings.HasPrefix(field(read("/proc/cpuinfo"), "vendor_id"), "User Mode Linux")
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
