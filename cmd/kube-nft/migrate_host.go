// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/controller/migrate"
	"github.com/kube-nft/kube-nft/nft/kubeproxy"
)

// proxyProcess is a process that keeps kube-proxy's rules.
type proxyProcess struct {
	pid  int
	args []string
	root string // where its file system is
	// unsure: whether it is in this network namespace cannot be seen.
	unsure bool
}

func (p proxyProcess) String() string { return fmt.Sprintf("process %d (%s)", p.pid, p.name()) }

// name is that of the program.
func (p proxyProcess) name() string { return programOf(p.args) }

// inside says that it is a program that has a kube-proxy inside, if it was not started
// without: k3s hides its arguments, since they may hold a password.
func (p proxyProcess) inside() bool { return p.name() != "kube-proxy" }

func programOf(args []string) string {
	name, _, _ := strings.Cut(filepath.Base(args[0]), " ")
	return name
}

// proxiesHere finds the kube-proxies of this network namespace, and those that may be in
// it. From a container that does not share the host's PID namespace none is seen, unless
// proc is the host's.
func proxiesHere(proc string) (all []proxyProcess, err error) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("look for kube-proxy: %w", err)
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, fmt.Errorf("look for kube-proxy: %w", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(proc, e.Name())
		text, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		args := strings.Split(strings.TrimRight(string(text), "\x00"), "\x00")
		if err != nil || !isProxy(args) {
			continue
		}
		ns, err := os.Readlink(filepath.Join(dir, "ns/net"))
		unsure := errors.Is(err, fs.ErrPermission)
		if unsure || ns == own {
			all = append(all, proxyProcess{pid, args, filepath.Join(dir, "root"), unsure})
		}
	}
	return all, nil
}

// isProxy says whether a command line is that of a kube-proxy, or of a program that has
// one inside. One that only cleans up is none.
func isProxy(args []string) bool {
	switch programOf(args) {
	case "kube-proxy":
		return !slices.Contains(args, "--cleanup") && !slices.Contains(args, "--cleanup=true")
	case "k3s":
		line := strings.Join(args, " ")
		return (strings.Contains(line, "server") || strings.Contains(line, "agent")) && !strings.Contains(line, "--disable-kube-proxy")
	}
	return false
}

// stoppedHere returns an error if a kube-proxy runs.
func stoppedHere(running []proxyProcess, err error) error {
	if len(running) == 0 || err != nil {
		return err
	}
	mend := "take it from this node first (docs/install.md, Node by node): its rules stay and carry packets"
	if running[0].inside() {
		mend = "start it with --disable-kube-proxy; if it was, which cannot be seen, --force"
	}
	if running[0].unsure {
		mend += "; if it is in another network namespace, which cannot be seen without CAP_SYS_PTRACE, --force"
	}
	return fmt.Errorf("%v runs, and would make its rules anew: %s", running[0], mend)
}

// runsHere returns an error unless a kube-proxy runs: what one that has stopped has left
// carries each frontend, too, to the endpoints that there were then.
func runsHere(running []proxyProcess, err error) error {
	for _, p := range running {
		if !p.unsure && !p.inside() {
			return nil
		}
	}
	switch {
	case err != nil:
		return err
	case len(running) == 0:
		return errors.New("none can be seen, and rules that are left follow no change: start it first; if it runs, --force, or from a pod hostPID: true")
	case running[0].inside():
		return fmt.Errorf("%v may have been started without it, which cannot be seen: if it was not, --force", running[0])
	}
	return fmt.Errorf("whether %v is in this network namespace cannot be seen without CAP_SYS_PTRACE: if it is, --force", running[0])
}

// flag returns the value of a flag in a command line.
func (p proxyProcess) flag(name string) string {
	for i, arg := range p.args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
		if arg == "--"+name && i+1 < len(p.args) {
			return p.args[i+1]
		}
	}
	return ""
}

// proxyConfig is how kube-proxy is configured, as far as can be found.
type proxyConfig struct {
	config  *config.Configuration // nil is unknown
	from    string                // for people
	unknown []string
}

// onlyMode is a configuration in which a mode is to follow.
const onlyMode = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: "

// findConfig reads the file that was named, or that of the kube-proxy that runs.
func findConfig(file string, running []proxyProcess) (found proxyConfig, err error) {
	switch {
	case file != "":
		found.from = file
	case len(running) == 0:
		return found, nil
	default:
		p := running[0]
		path := p.flag("config")
		if path == "" {
			mode := p.flag("proxy-mode")
			if c, _, err := config.Decode([]byte(onlyMode + mode)); err == nil && mode != "" {
				config.SetDefaults(c)
				found.config, found.from = c, fmt.Sprintf("--proxy-mode=%s of %v", mode, p)
			}
			return found, nil
		}
		file, found.from = filepath.Join(p.root, path), fmt.Sprintf("%s of %v", path, p)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrPermission) {
			found.from += ", which cannot be read from here: see --config"
			return found, nil
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return found, fmt.Errorf("read kube-proxy's configuration: %w", err)
	}
	if found.config, found.unknown, err = config.Decode(text); found.config == nil || err != nil {
		return found, fmt.Errorf("kube-proxy's configuration %s: %w", found.from, errors.Join(err, errConfig))
	}
	config.SetDefaults(found.config)
	return found, nil
}

// factsOf collects what is known.
func factsOf(c proxyConfig, found *kubeproxy.Found) migrate.Facts {
	f := migrate.Facts{Mode: found.Mode(), Config: c.config}
	if c.config != nil {
		f.Mode = string(config.Mode(c.config))
	}
	for _, s := range found.Services {
		f.Connections += s.Active + s.Inactive
		if !slices.Contains(f.Schedulers, s.Scheduler) {
			f.Schedulers = append(f.Schedulers, s.Scheduler)
		}
	}
	f.Accepts = slices.ContainsFunc(found.Rules, func(r kubeproxy.Rules) bool { return r.Accepts })
	f.RouteLocalnet = sysctl("ipv4/conf/all/route_localnet") == "1"
	f.StrictARP = f.Mode == "ipvs" && sysctl("ipv4/conf/all/arp_ignore") == "1" && sysctl("ipv4/conf/all/arp_announce") == "2"
	return f
}
