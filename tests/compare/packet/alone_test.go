// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"net/netip"
	"testing"
)

func TestSaved(t *testing.T) {
	got := saved(netip.MustParseAddrPort("10.1.0.0:80"), []netip.AddrPort{netip.MustParseAddrPort("10.128.0.1:8080")})
	if want := "-A -t 10.1.0.0:80 -s rr\n-a -t 10.1.0.0:80 -r 10.128.0.1:8080 -m -w 1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
