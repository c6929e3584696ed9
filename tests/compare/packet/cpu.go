// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// onOneCPU calls f on a thread that stays on one CPU, the last that it may use, and
// that nothing of ordinary priority interrupts there, if this process may ask for
// that. The thread ends with it.
func onOneCPU(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: nobody else is to have this thread
		err := pin()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// pin binds the calling thread to the last of its CPUs.
func pin() error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Zero()
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("set CPU affinity: %w", err)
	}
	// Without the privilege it is a little noisier.
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1,
	}, 0)
	return nil
}
