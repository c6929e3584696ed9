// SPDX-License-Identifier: Apache-2.0

// Command build makes sure that the programs which it is given, by default all of
// package cluster's, are there, so that tests need not wait for them, nor have the
// network. It prints the paths.
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
	programs := cluster.Programs
	if len(os.Args) > 1 {
		programs = nil
		for _, name := range os.Args[1:] {
			programs = append(programs, cluster.Program(name))
		}
	}
	paths, err := cluster.Build(ctx, slog.Default(), programs...)
	if err != nil {
		slog.Error("nothing to run", "err", err)
		os.Exit(1)
	}
	for _, path := range paths {
		fmt.Println(path)
	}
}
