// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Isolate runs this program again, with args as its arguments (args[0] is the
// name), in fresh network and mount namespaces, and returns its exit code; a
// program that died of signal n has code 128+n. Without the privilege it adds
// a user namespace in which the caller is root. Standard input, output and
// error are shared, signals are forwarded, and the child does not outlive the
// parent. An error means that nothing ran. A command begins with
//
//	if !netlab.Isolated() {
//		code, err := netlab.Isolate(os.Args)
//		if err != nil {
//			return err
//		}
//		os.Exit(code)
//	}
func Isolate(args []string) (int, error) {
	if err := enter(); err == nil {
		return 0, errors.New("isolate: already isolated")
	} else if isChild() {
		return 0, err // its own child came here: another one would not fare better
	}
	m := marker{pid: os.Getpid()}
	var err error
	if m.net, err = os.Readlink("/proc/self/ns/net"); err != nil {
		return 0, err
	}
	if m.user, err = os.Readlink("/proc/self/ns/user"); err != nil {
		return 0, err
	}
	// Pdeathsig is sent when the thread that forked ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	cmd, err := start(args, environ(m))
	if err != nil {
		signal.Stop(signals)
		return 0, err
	}
	go forward(signals, cmd.Process)
	err = cmd.Wait()
	signal.Stop(signals)
	close(signals)
	return exitCode(cmd.ProcessState, err)
}

// start starts the program, as it is if that is allowed, else in a user
// namespace.
func start(args, env []string) (*exec.Cmd, error) {
	const flags = unix.CLONE_NEWNET | unix.CLONE_NEWNS
	attrs := []*syscall.SysProcAttr{
		{Cloneflags: flags, Pdeathsig: unix.SIGKILL},
		{
			Cloneflags:  flags | unix.CLONE_NEWUSER,
			Pdeathsig:   unix.SIGKILL,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		},
	}
	var failed error
	for _, attr := range attrs {
		cmd := &exec.Cmd{
			Path: "/proc/self/exe", Args: args, Env: env, SysProcAttr: attr,
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		}
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		failed = err
		if !errors.Is(err, unix.EPERM) {
			break
		}
	}
	return nil, fmt.Errorf("start in new namespaces: %w", failed)
}

// forward passes signals on until the channel is closed. What a terminal sends
// to the whole foreground group has reached the child already.
func forward(signals <-chan os.Signal, p *os.Process) {
	for s := range signals {
		keyboard := s == unix.SIGINT || s == unix.SIGQUIT
		if keyboard && foreground() {
			continue
		}
		_ = p.Signal(s) // an error says that the child has ended
	}
}

// foreground reports whether the process group of this process is the one that
// the keyboard of its controlling terminal signals.
func foreground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

func exitCode(state *os.ProcessState, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for isolated process: %w", err)
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return state.ExitCode(), nil
}
