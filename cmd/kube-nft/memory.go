// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime/debug"
)

// gcPercent is how much garbage there may be for what is in use, in percent. Go's own
// 100 makes twice the memory; a node has better use for it than we for the time, as
// nearly all that a change of the cluster costs us is spent outside of the heap.
const gcPercent = 50

// boundMemory keeps the process small. GOGC overrides it (package runtime).
func boundMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// returnMemory gives back what the start took: objects as the API server sent them, and
// the transactions that made the tables. By itself the runtime would keep most of it.
func returnMemory() { debug.FreeOSMemory() }
