// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// process is a child that dies with its parent.
type process struct {
	pid  int
	kill func() error
	done chan struct{} // closed when the child is gone
	err  error         // why, once done is closed
}

// start runs cmd with its output appended to the file at log.
func start(cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL

	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that forked ends, and a thread
		// of Go's may end long before the process does (https://go.dev/issue/27505).
		// This one stays for as long as the child lives. It also is a thread that no
		// caller has moved to another network namespace.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p.pid, p.kill = cmd.Process.Pid, cmd.Process.Kill
	return p, nil
}

// stop kills the child and returns when it is gone. It may be gone already, and
// the process may be nil.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	if err := p.kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", p.pid, err)
	}
	<-p.done
	return nil
}

// gone returns an error if the child has ended.
func (p *process) gone() error {
	select {
	case <-p.done:
		return fmt.Errorf("process %d ended: %w", p.pid, exitError(p.err))
	default:
		return nil
	}
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// InNamespace returns a Config.Command for the network namespace that a file, as
// in /run/netns, refers to. It needs `nsenter`.
func InNamespace(path string) func(ctx context.Context, name string, args ...string) *exec.Cmd {
	return func(ctx context.Context, name string, args ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + path, "--", name}, args...)...)
	}
}

// given are the ports that freePort has returned: who has one may not listen on it yet,
// or not while it starts anew.
var given sync.Map

// freePort returns a TCP port on which nothing listens in the network namespace
// of command's processes, another one each time. A child looks, because this process
// may be elsewhere.
func freePort(ctx context.Context, command commandFunc) (uint16, error) {
	out, err := command(ctx, "cat", "/proc/self/net/tcp", "/proc/self/net/tcp6").Output()
	if ctx.Err() != nil {
		return 0, fmt.Errorf("list TCP ports in use: %w", context.Cause(ctx))
	}
	if len(out) == 0 { // tcp6 alone may be missing
		return 0, fmt.Errorf("list TCP ports in use: %w", exitError(err))
	}
	used := portsInUse(out)
	// Neither node ports (30000-32767) nor ephemeral ports (from 32768).
	const low, high = 16384, 30000
	for {
		port := uint16(low + rand.IntN(high-low))
		if _, taken := given.LoadOrStore(port, true); !taken && !used[port] {
			return port, nil
		}
	}
}

// portsInUse reads the local ports from the text of /proc/net/tcp and tcp6.
func portsInUse(table []byte) map[uint16]bool {
	used := make(map[uint16]bool)
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 {
			continue
		}
		_, hex, _ := strings.Cut(fields[1], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
			used[uint16(port)] = true
		}
	}
	return used
}
