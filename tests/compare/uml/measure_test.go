// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"net/netip"
	"slices"
	"testing"
)

func TestEnviron(t *testing.T) {
	got := environ([]string{"HOME=/root", "PATH=/elsewhere", "PATHS=1"})
	if want := []string{"HOME=/root", "PATHS=1", "PATH=" + lookIn}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAloneLines(t *testing.T) {
	got := aloneLines(netip.MustParseAddrPort("10.1.0.0:80"), []netip.AddrPort{netip.MustParseAddrPort("10.128.0.1:8080")})
	want := []string{"-A -t 10.1.0.0:80 -s rr", "-a -t 10.1.0.0:80 -r 10.128.0.1:8080 -m -w 1"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
