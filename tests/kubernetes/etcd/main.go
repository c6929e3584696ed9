// SPDX-License-Identifier: Apache-2.0

// Command etcd is etcd, in the version that this module requires. What Linux
// distributions have may be too old for streamed lists.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
