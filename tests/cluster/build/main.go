// SPDX-License-Identifier: Apache-2.0

// Command build makes sure that what package cluster starts is there, so that
// tests need not wait for it, nor have the network. It prints the paths.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"github.com/kube-nft/kube-nft/tests/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	bin, err := cluster.Build(ctx, slog.Default())
	if err != nil {
		slog.Error("nothing to run", "err", err)
		os.Exit(1)
	}
	fmt.Println(bin.Etcd)
	fmt.Println(bin.APIServer)
}
