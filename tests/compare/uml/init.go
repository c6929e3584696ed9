// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Init is process 1 of a machine: it makes the machine's mounts, runs the job, and
// ends the machine. It returns only where it is not process 1, or cannot do so.
func Init() error {
	if os.Getpid() != 1 {
		return errors.New("init: not process 1 of a machine")
	}
	if err := initialize(); err != nil {
		fmt.Fprintf(os.Stderr, "init: %v\n", err)
	}
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func initialize() error {
	share := os.Getenv(shareVariable)
	if err := mountAll(share); err != nil {
		return err
	}
	if err := prepare(); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(share, jobFile))
	if err != nil {
		return err
	}
	var job Job
	if err := json.Unmarshal(text, &job); err != nil {
		return fmt.Errorf("read %s: %w", jobFile, err)
	}
	code, err := job.run()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(share, exitFile), []byte(strconv.Itoa(code)+"\n"), 0o644)
}

// mount is one of a machine's, by mount(2).
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) mount() error {
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// layer is where the host's root becomes one that can be written to. There must be
// such a directory on the host, and nothing to be read in it.
const layer = "/dev"

// mountAll replaces the root, which is the host's and read-only, by itself under a
// layer of memory, with the file systems of this kernel and the share in it.
func mountAll(share string) error {
	if err := (mount{"memory", layer, "tmpfs", 0, "mode=755,size=90%"}).mount(); err != nil {
		return err
	}
	for _, dir := range []string{"/upper", "/work", "/root"} {
		if err := os.Mkdir(layer+dir, 0o755); err != nil {
			return err
		}
	}
	root := layer + "/root"
	overlay := fmt.Sprintf("lowerdir=/,upperdir=%s/upper,workdir=%s/work", layer, layer)
	for _, m := range []mount{
		{"root", root, "overlay", 0, overlay},
		{"proc", root + "/proc", "proc", 0, ""},
		{"sysfs", root + "/sys", "sysfs", 0, ""},
		{"devtmpfs", root + "/dev", "devtmpfs", 0, ""},
		{"run", root + "/run", "tmpfs", 0, "mode=755"},
	} {
		if err := m.mount(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(root+share, 0o755); err != nil {
		return err
	}
	if err := (mount{"share", root + share, "hostfs", 0, share}).mount(); err != nil {
		return err
	}
	// The old root ends on top of the new one, and goes; the layer keeps it in use.
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount the old root: %w", err)
	}
	return unix.Chdir("/")
}

// prepare is what an init does that programs count on.
func prepare() error {
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for dir, kind := range map[string]string{"/dev/shm": "tmpfs", "/dev/pts": "devpts"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := (mount{kind, dir, kind, 0, ""}).mount(); err != nil {
			return err
		}
	}
	files := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	return unix.Sethostname([]byte("uml"))
}

// run runs the job and returns its exit code. Meanwhile it waits for whatever else
// ends, whose parent process 1 is when its own has ended.
func (j Job) run() (int, error) {
	console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
	if err != nil {
		return 0, err
	}
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	if len(j.Args) == 0 {
		return 0, errors.New("no command")
	}
	p, err := os.StartProcess(j.Args[0], j.Args, &os.ProcAttr{
		Dir: j.Dir, Env: j.Env, Files: []*os.File{nothing, console, console},
	})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait for %s: %w", j.Args[0], err)
		case pid != p.Pid:
		case status.Exited():
			return status.ExitStatus(), drain(console)
		case status.Signaled():
			return 128 + int(status.Signal()), drain(console)
		}
	}
}

// drain waits until the console has shown everything.
func drain(console *os.File) error {
	time.Sleep(100 * time.Millisecond)
	return unix.IoctlSetInt(int(console.Fd()), unix.TCSBRK, 1) // tcdrain
}
