// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// launchWord is the argument by which this program knows that it is to become another
// one, under a filter.
const launchWord = "inject-launch"

// asked are the calls that the filter asks about.
var asked = []uint32{unix.SYS_SENDTO, unix.SYS_READ, unix.SYS_RECVFROM, unix.SYS_RECVMSG}

// Launched is for TestMain to call first: it does not return in a process that Start
// has started.
func Launched() {
	if len(os.Args) < 4 || os.Args[1] != launchWord {
		return
	}
	err := launch(os.Args[2], os.Args[3:])
	fmt.Fprintln(os.Stderr, "launch under a seccomp filter:", err)
	os.Exit(1)
}

// launch puts this thread under the filter, waits until the Injector listens, which
// it says by a file, and becomes the program.
func launch(ready string, command []string) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program, err := filter()
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(program)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	var stat unix.Stat_t
	for unix.Stat(ready, &stat) != nil {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: 1e6}, nil)
	}
	return syscall.Exec(command[0], command, os.Environ())
}

// filter is the program of the filter. struct seccomp_data begins with the number of
// the call; its arguments begin at 16, the low half first (linux/seccomp.h).
func filter() (*unix.SockFprog, error) {
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}}
	for i, nr := range asked {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipTrue: uint8(len(asked) - i + 3)})
	}
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLOCK_GETTIME, SkipFalse: 2},
		bpf.LoadAbsolute{Off: 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.CLOCK_REALTIME, SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
		bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, err
	}
	filters := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filters[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return &unix.SockFprog{Len: uint16(len(filters)), Filter: &filters[0]}, nil
}
