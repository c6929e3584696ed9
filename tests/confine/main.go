// SPDX-License-Identifier: Apache-2.0

// Command confine runs a program with fewer privileges than root has, for tests: as a
// container runtime or a service manager would, without either.
//
//	confine -caps net_admin -no-new-privs -profile deploy/seccomp/kube-nft.json -violation kill kube-nft run …
//
// A test that takes a kube-nft by KUBE_NFT_PROGRAM gets a confined one if that is confine
// and KUBE_NFT_CONFINED has confine's arguments, up to the program: so whole suites run
// under the profile.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// confinedEnv has arguments, with blanks between.
const confinedEnv = "KUBE_NFT_CONFINED"

func main() {
	runtime.LockOSThread() // most of what follows is a thread's own, and goes on with exec
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "confine:", err)
		os.Exit(125)
	}
}

type options struct {
	caps       string
	uid        int
	noNewPrivs bool
	readOnly   bool
	profile    string
	violation  string
}

func run() error {
	var o options
	f := flag.NewFlagSet("confine", flag.ContinueOnError)
	f.StringVar(&o.caps, "caps", "all", "the capabilities that are left, with commas between: net_admin; none; all")
	f.IntVar(&o.uid, "uid", 0, "the user; capabilities of another one than 0 are ambient")
	f.BoolVar(&o.noNewPrivs, "no-new-privs", false, "exec gives no privileges (PR_SET_NO_NEW_PRIVS)")
	f.BoolVar(&o.readOnly, "read-only", false, "every file system is mounted read-only")
	f.StringVar(&o.profile, "profile", "", "a seccomp profile as container runtimes read it")
	f.StringVar(&o.violation, "violation", "profile", "what happens to calls that the profile does not allow: kill, log, or what it says")
	if err := f.Parse(append(strings.Fields(os.Getenv(confinedEnv)), os.Args[1:]...)); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return errors.New("no program is named")
	}
	if o.readOnly {
		if err := readOnly(); err != nil {
			return fmt.Errorf("mount read-only: %w", err)
		}
	}
	if err := o.privileges(); err != nil {
		return fmt.Errorf("drop privileges: %w", err)
	}
	if o.noNewPrivs {
		if err := seccomp.SetNoNewPrivs(); err != nil {
			return err
		}
	}
	if o.profile != "" {
		if err := o.filter(); err != nil {
			return fmt.Errorf("seccomp: %w", err)
		}
	}
	return fmt.Errorf("%s: %w", f.Arg(0), syscall.Exec(f.Arg(0), f.Args(), os.Environ()))
}

// readOnly makes all mounts read-only, in a mount namespace of the process's own.
func readOnly() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	return unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// numbers are those of capabilities (linux/capability.h).
var numbers = map[string]int{"net_admin": unix.CAP_NET_ADMIN, "net_raw": unix.CAP_NET_RAW}

// privileges leaves the capabilities that are named, and makes the process the user's.
func (o *options) privileges() error {
	var left uint64
	switch o.caps {
	case "all":
		left = 1<<(unix.CAP_LAST_CAP+1) - 1
	case "none":
	default:
		for name := range strings.SplitSeq(o.caps, ",") {
			n, ok := numbers[name]
			if !ok {
				return fmt.Errorf("no capability %q", name)
			}
			left |= 1 << n
		}
	}
	for n := range unix.CAP_LAST_CAP + 1 {
		if left&(1<<n) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0); err != nil {
			return err
		}
	}
	if o.uid != 0 {
		if err := o.setUser(); err != nil {
			return err
		}
	}
	if o.caps == "all" {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		part := uint32(left >> (32 * i))
		data[i] = unix.CapUserData{Effective: part, Permitted: part}
		if o.uid != 0 {
			data[i].Inheritable = part // as ambient ones must be
		}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return err
	}
	for n := range unix.CAP_LAST_CAP + 1 {
		if o.uid == 0 || left&(1<<n) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return err
		}
	}
	return nil
}

// setUser changes to the user, whose permitted capabilities stay until they are set.
func (o *options) setUser() error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	for _, call := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, uintptr(o.uid), uintptr(o.uid), uintptr(o.uid)},
		{unix.SYS_SETRESUID, uintptr(o.uid), uintptr(o.uid), uintptr(o.uid)},
	} {
		if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], call[3]); errno != 0 {
			return errno
		}
	}
	return nil
}

// profile is a seccomp profile, as far as ours goes (OCI runtime specification,
// LinuxSeccomp).
type profile struct {
	DefaultAction string
	Syscalls      []struct {
		Names  []string
		Action string
	}
}

var actions = map[string]seccomp.Action{
	"SCMP_ACT_ALLOW": seccomp.ActionAllow, "SCMP_ACT_ERRNO": seccomp.ActionErrno, "SCMP_ACT_LOG": seccomp.ActionLog,
	"SCMP_ACT_KILL_PROCESS": seccomp.ActionKillProcess,
	"kill":                  seccomp.ActionKillProcess, "log": seccomp.ActionLog,
}

// filter installs the profile's filter for this thread.
func (o *options) filter() error {
	text, err := os.ReadFile(o.profile)
	if err != nil {
		return err
	}
	var p profile
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	here, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	if o.violation == "profile" {
		o.violation = p.DefaultAction
	}
	policy := seccomp.Policy{DefaultAction: actions[o.violation]}
	for _, rule := range p.Syscalls {
		group := seccomp.SyscallGroup{Action: actions[rule.Action]}
		for _, name := range rule.Names {
			// A profile names the calls of all architectures, as libseccomp lets it.
			if _, ok := here.SyscallNames[name]; ok {
				group.Names = append(group.Names, name)
			}
		}
		policy.Syscalls = append(policy.Syscalls, group)
	}
	return seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: o.noNewPrivs, Policy: policy})
}
