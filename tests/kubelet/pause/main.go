// SPDX-License-Identifier: Apache-2.0

// Command pause holds a pod's namespaces while its containers come and go: it waits
// for a signal.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
}
