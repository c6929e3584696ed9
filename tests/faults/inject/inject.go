// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// Injector decides on the calls of one process, for as long as that lives. Its methods
// may be called from any goroutine.
type Injector struct {
	pid      int
	pidfd    int
	listener int
	done     chan struct{} // closed when the process has ended
	sockets  sockets
	clock    clock

	mu    sync.Mutex
	rule  Rule
	calls int
	hits  []Call // those with a verdict
	err   error
}

// Start starts a program as process.Start does, and decides on its calls: by the rule,
// or, without one, to let all of them go on.
func Start(tb testing.TB, n *netlab.Namespace, rule Rule, program string, args ...string) (*process.Process, *Injector) {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	ready := filepath.Join(tb.TempDir(), "ready")
	p := process.Start(tb, n, self, append([]string{launchWord, ready, program}, args...)...)
	i := &Injector{pid: p.PID(), rule: rule, done: make(chan struct{}), sockets: newSockets(p.PID())}
	if i.clock, err = newClock(p.PID(), program); err != nil {
		tb.Fatal(err)
	}
	if err := i.attach(); err != nil {
		tb.Fatal(err)
	}
	go i.serve()
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = unix.PidfdSendSignal(i.pidfd, unix.SIGKILL, nil, 0) // it may have ended
		<-i.done
		if err := i.Err(); err != nil {
			tb.Errorf("injector: %v", err)
		}
		unix.Close(i.listener)
		unix.Close(i.pidfd)
	})
	return p, i
}

// attachLimit is patience with a process that starts, on a busy machine.
const attachLimit = 20 * time.Second

// attach takes a copy of the filter's listener from the process.
func (i *Injector) attach() error {
	var err error
	if i.pidfd, err = unix.PidfdOpen(i.pid, 0); err != nil {
		return err
	}
	return netlab.Poll(attachLimit, func() error {
		descriptors, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", i.pid))
		if err != nil {
			return err
		}
		for _, path := range descriptors {
			if to, _ := os.Readlink(path); !strings.HasPrefix(to, "anon_inode:seccomp") {
				continue
			}
			var fd int
			if _, err := fmt.Sscan(filepath.Base(path), &fd); err != nil {
				return err
			}
			i.listener, err = unix.PidfdGetfd(i.pidfd, fd, 0)
			return err
		}
		return fmt.Errorf("process %d is not under a filter", i.pid)
	})
}

// Set replaces the rule; nil lets everything go on.
func (i *Injector) Set(rule Rule) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.rule = rule
}

// Hits returns the calls that had a verdict other than to go on.
func (i *Injector) Hits() []Call {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hits
}

// Calls is how many calls on netfilter netlink there were.
func (i *Injector) Calls() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.calls
}

func (i *Injector) fail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = errors.Join(i.err, err)
}

// Err is what went wrong in the Injector itself.
func (i *Injector) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.err
}

// notification and response are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	ID    uint64
	PID   uint32
	Flags uint32
	NR    int32
	Arch  uint32
	IP    uint64
	Args  [6]uint64
}

type response struct {
	ID    uint64
	Val   int64
	Error int32
	Flags uint32
}

// serve answers until the process has ended.
func (i *Injector) serve() {
	defer close(i.done)
	for {
		var n notification
		if err := i.next(&n); err != nil {
			if !errors.Is(err, errEnded) {
				i.fail(err)
			}
			return
		}
		if err := i.clock.hold(); err != nil {
			i.fail(err)
		}
		if n.NR == unix.SYS_CLOCK_GETTIME {
			i.tell(&n)
			continue
		}
		if v := i.decide(&n); v.after > 0 {
			time.AfterFunc(v.after, func() { i.answer(&n, v) })
		} else {
			i.answer(&n, v)
		}
	}
}

var errEnded = errors.New("the process has ended")

// next waits for a notification.
func (i *Injector) next(n *notification) error {
	for {
		fds := []unix.PollFd{{Fd: int32(i.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			return fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents&unix.POLLIN == 0 {
			return errEnded
		}
		*n = notification{}
		switch errno := i.control(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n)); errno {
		case 0:
			return nil
		case unix.EINTR, unix.ENOENT: // the caller was killed meanwhile
		default:
			return fmt.Errorf("receive notification: %w", errno)
		}
	}
}

func (i *Injector) control(request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(i.listener), request, uintptr(arg))
	return errno
}

// decide asks the rule about calls on netfilter sockets.
func (i *Injector) decide(n *notification) Verdict {
	c, ok := i.sockets.call(n)
	if !ok {
		return Verdict{}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.calls++
	c.N = i.calls
	if i.rule == nil {
		return Verdict{}
	}
	v := i.rule(c)
	if v != (Verdict{}) {
		i.hits = append(i.hits, c)
	}
	return v
}

// answer carries a verdict out.
func (i *Injector) answer(n *notification, v Verdict) {
	if v.made {
		if err := i.sockets.do(i.pidfd, n); err != nil {
			i.fail(err)
		}
	}
	if v.kill {
		_ = unix.PidfdSendSignal(i.pidfd, unix.SIGKILL, nil, 0)
		return // it waits for an answer, and dies
	}
	r := response{ID: n.ID, Error: -int32(v.errno)}
	if v.errno == 0 {
		r.Flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	_ = i.control(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) // the caller may have been killed
}
