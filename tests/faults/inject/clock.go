// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clock is the wall clock as the process sees it. A program in Go reads it without a
// call, by the kernel's vDSO, unless runtime.vdsoClockgettimeSym is 0, as it is where
// the kernel has none. So that is made 0 in the memory of the process, before its main
// runs, and each look at the wall clock is a call that the filter asks about. The
// machine's clock is not touched, and the monotonic clock is the kernel's.
type clock struct {
	pid     int
	program string
	at      uintptr // of runtime.vdsoClockgettimeSym
	held    bool
	skew    *atomic.Int64 // nanoseconds
}

// newClock finds the variable in the program's symbol table.
func newClock(pid int, program string) (clock, error) {
	c := clock{pid: pid, skew: new(atomic.Int64)}
	var err error
	if c.program, err = os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil {
		return c, err // it is this program still
	}
	f, err := elf.Open(program)
	if err != nil {
		return c, err
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if err != nil {
		return c, fmt.Errorf("symbols of %s: %w", program, err)
	}
	for _, s := range symbols {
		if s.Name == "runtime.vdsoClockgettimeSym" {
			c.at = uintptr(s.Value)
			return c, nil
		}
	}
	return c, fmt.Errorf("%s has no runtime.vdsoClockgettimeSym", program)
}

// hold takes the vDSO from the process as soon as it is another program. It is called
// on its first calls, which Go's runtime makes when it has read where the vDSO is: it
// asks the kernel for the size of large pages (runtime.osinit).
func (c *clock) hold() error {
	if c.held {
		return nil
	}
	now, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.pid))
	if err != nil || now == c.program {
		return nil // it has ended, or has not begun
	}
	c.held = true
	return write(c.pid, c.at, make([]byte, 8))
}

// Skew has the wall clock of the process be ahead, or behind if d is below 0, from now
// on.
func (i *Injector) Skew(d time.Duration) { i.clock.skew.Store(int64(d)) }

// tell answers what time it is.
func (i *Injector) tell(n *notification) {
	now := time.Now().UnixNano() + i.clock.skew.Load()
	timespec := binary.NativeEndian.AppendUint64(nil, uint64(now/1e9))
	timespec = binary.NativeEndian.AppendUint64(timespec, uint64(now%1e9))
	if err := write(i.pid, uintptr(n.Args[1]), timespec); err != nil {
		i.fail(err)
	}
	r := response{ID: n.ID}
	_ = i.control(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) // the caller may have been killed
}

// write writes to the memory of a process.
func write(pid int, at uintptr, data []byte) error {
	local := []unix.Iovec{{Base: &data[0]}}
	local[0].SetLen(len(data))
	if _, err := unix.ProcessVMWritev(pid, local, []unix.RemoteIovec{{Base: at, Len: len(data)}}, 0); err != nil && err != unix.ESRCH {
		return fmt.Errorf("write memory of process %d: %w", pid, err)
	}
	return nil
}
