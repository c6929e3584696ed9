// SPDX-License-Identifier: Apache-2.0

package program

import (
	"testing"

	"github.com/kube-nft/kube-nft/tests/compare/setup"
)

func TestMain(m *testing.M) { setup.TestMain(m) }
