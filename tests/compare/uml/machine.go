// SPDX-License-Identifier: Apache-2.0

// Package uml runs a program inside user-mode Linux: a kernel that is a process of the
// host's, with the host's files, and with the IPVS that the host's own kernel lacks.
//
//	host                                     inside
//	Machine.Run ── starts ──> linux ───────> init = the same program, see Init
//	  Job ──> job.json ─────┐                  mounts: the host's root under a layer of
//	                        ├─ Share, hostfs   memory, and Share, which is the host's
//	  exit code <── exit ───┘                  runs the job's command, writes its exit
//	  Output <── console                       code, powers off
//
// Whatever a program inside writes is gone with the machine, but for what it writes to
// Share. It has one processor and no network but its own. Time is the host's.
//
// A system call costs some microseconds there and a page fault more, so times measured
// inside compare with others from the same run only.
//
// The kernel is built from Debian's source by Build, once; Find looks for it and never
// builds.
package uml

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Job is a command that runs inside.
type Job struct {
	Args []string // the first is the path of the program
	Env  []string
	Dir  string // its working directory
}

// The files of Share that a machine and its init know.
const (
	jobFile  = "job.json"
	exitFile = "exit"
)

// shareVariable tells init where Share is.
const shareVariable = "KUBE_NFT_SHARE"

// Machine is a computer that is a process.
type Machine struct {
	Kernel string // the path of the program, see Find
	Init   []string
	// Share is a directory of the host that is the same directory inside. It is not
	// changed but for two files there.
	Share  string
	Memory int64     // bytes
	Output io.Writer // the console
}

// NewMachine returns one whose init is this program, with the word that makes it call
// Init, and its memory what the host can spare: up to 6 GiB. An error says what is too
// little.
func NewMachine(kernel, word, share string, output io.Writer) (Machine, error) {
	self, err := os.Executable()
	if err != nil {
		return Machine{}, err
	}
	// A kernel's arguments are words.
	for _, path := range []string{self, share} {
		if strings.ContainsAny(path, " \t\n\"") {
			return Machine{}, fmt.Errorf("path of a machine: a space or a quote in %q", path)
		}
	}
	m := Machine{Kernel: kernel, Init: []string{self, word}, Share: share, Output: output}
	free, err := available()
	if err != nil {
		return Machine{}, err
	}
	m.Memory, err = spare(free)
	return m, err
}

const (
	leastMemory = 2 << 30 // etcd and an API server with a thousand Services
	mostMemory  = 6 << 30
)

// spare returns how much of what is free a machine gets.
func spare(free int64) (int64, error) {
	m := min(free/4*3, mostMemory) &^ (1<<20 - 1)
	if m < leastMemory {
		return 0, fmt.Errorf("memory: %d MiB are free, want %d", free>>20, leastMemory/3*4>>20)
	}
	return m, nil
}

// available returns the bytes of memory that are free on this host.
func available() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			return kb << 10, nil
		}
	}
	return 0, errors.New("no MemAvailable in /proc/meminfo")
}

// backing returns the first directory with room for a file of that size, which is the
// machine's memory: one in memory, or else on a disk, which is as good while the host
// has memory to cache it.
func backing(size int64) (string, error) {
	var tried []string
	for _, dir := range []string{"/dev/shm", os.TempDir()} {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			tried = append(tried, fmt.Sprintf("%s: %v", dir, err))
			continue
		}
		free := int64(s.Bavail) * s.Bsize
		if free >= size {
			return dir, nil
		}
		tried = append(tried, fmt.Sprintf("%s has %d MiB", dir, free>>20))
	}
	return "", fmt.Errorf("no room for %d MiB of memory: %s", size>>20, strings.Join(tried, ", "))
}

// args are the kernel's; it keeps files of its own in dir.
func (m Machine) args(dir string) []string {
	return append([]string{
		m.Kernel,
		"mem=" + strconv.FormatInt(m.Memory>>20, 10) + "M",
		"uml_dir=" + dir,
		"umid=machine",
		"root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro",
		"con0=null,fd:1", "con=null", "ssl=null",
		"console=tty0", "quiet", "loglevel=4",
		"panic=-1", // ends rather than halts
		// IPVS forgets a connection after a minute only, and its table has 4,096 chains by
		// default: their length would be most of its cost.
		"ip_vs.conn_tab_bits=20",
		shareVariable + "=" + m.Share,
		"init=" + m.Init[0],
		"--",
	}, m.Init[1:]...)
}

// Run boots the machine, runs the job in it and returns the job's exit code. An error
// means that there is none: the job did not start or did not end, say because ctx did
// first. Nothing of the machine is left in any case.
func (m Machine) Run(ctx context.Context, job Job) (code int, err error) {
	text, err := json.Marshal(job)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(m.Share, jobFile), text, 0o644); err != nil {
		return 0, err
	}
	if err := os.Remove(filepath.Join(m.Share, exitFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	memory, err := backing(m.Memory)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "kube-nft-uml-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)

	var last tailWriter
	cmd := exec.CommandContext(ctx, m.Kernel)
	cmd.Args = m.args(dir)
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + memory, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdout = io.MultiWriter(withoutReturns{m.Output}, &last)
	cmd.Stderr = cmd.Stdout
	err = runGroup(cmd)
	if ctx.Err() != nil {
		return 0, fmt.Errorf("run user-mode Linux: %w", context.Cause(ctx))
	}
	if code, ok := m.exitCode(); ok {
		return code, nil
	}
	return 0, fmt.Errorf("run user-mode Linux: no exit code of %s: %v\n%s", job.Args[0], err, last.text)
}

// exitCode returns what init has written.
func (m Machine) exitCode() (int, bool) {
	text, err := os.ReadFile(filepath.Join(m.Share, exitFile))
	if err != nil {
		return 0, false
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return code, err == nil
}

// runGroup runs a command as a process group, which is gone when it returns. The
// machine's programs are processes of the host's in that group: they end with the
// kernel's process, and should one of them not, by the group's signal.
func runGroup(cmd *exec.Cmd) error {
	// Pdeathsig is sent when the thread that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second // for the console, should a process of the group hold it
	if err := onOneCPU(cmd.Start); err != nil {
		return err
	}
	err := cmd.Wait()
	// The group's number is nobody else's while a process of the group lives; without
	// one there is ESRCH, as there should be.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return err
}

// onOneCPU calls f while the calling thread, and what it starts, stays on the last of
// the CPUs that it may use. The machine has one only, and each system call in there is
// two switches between processes out here, which take longer from one CPU to another.
func onOneCPU(f func() error) error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for cpu := range len(all) * 64 {
		if all.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("set CPU affinity: %w", err)
	}
	return errors.Join(f(), unix.SchedSetaffinity(0, &all))
}

// withoutReturns drops the carriage returns of a console.
type withoutReturns struct{ w io.Writer }

func (w withoutReturns) Write(b []byte) (int, error) {
	if _, err := w.w.Write(bytes.ReplaceAll(b, []byte("\r"), nil)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// tailWriter keeps the end of what is written.
type tailWriter struct{ text []byte }

func (w *tailWriter) Write(b []byte) (int, error) {
	w.text = append(w.text, b...)
	if len(w.text) > 8000 {
		w.text = append([]byte(nil), lastBytes(w.text, 4000)...)
	}
	return len(b), nil
}
