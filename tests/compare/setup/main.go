// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestMain runs the tests of a package, a testing.M, where kube-nft may be run: in a
// network namespace of their own, with the program built.
func TestMain(m interface{ Run() int }) {
	o := Options{Peers: []string{"kube-nft"}}
	err := o.Isolated(context.Background(), slog.Default(), func() error { return ExitError(m.Run()) })
	if exit, ok := errors.AsType[ExitError](err); ok {
		os.Exit(int(exit))
	}
	if err != nil {
		netlab.GiveUp(err)
	}
}
