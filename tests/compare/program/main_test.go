// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) {
	o := setup.Options{Peers: []string{"kube-nft"}}
	err := o.Isolated(context.Background(), slog.Default(), func() error { return setup.ExitError(m.Run()) })
	if exit, ok := errors.AsType[setup.ExitError](err); ok {
		os.Exit(int(exit))
	}
	if err != nil {
		netlab.GiveUp(err)
	}
}
