// SPDX-License-Identifier: Apache-2.0

package program

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// favoured runs f on a thread of its own that the kernel runs soon when it has something
// to do: what watches a busy machine is not to wait behind what it watches. Without the
// permission it is a thread like any other.
func favoured(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20)
		f()
	}()
	<-done
}
