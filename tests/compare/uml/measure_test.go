// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"slices"
	"testing"
)

func TestEnviron(t *testing.T) {
	got := environ([]string{"HOME=/root", "PATH=/elsewhere", "PATHS=1"})
	if want := []string{"HOME=/root", "PATHS=1", "PATH=" + lookIn}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
