// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/nft"
)

// added is a notification of elements that somebody added to KUBE-CLUSTER-IP.
func added(first, n int) []byte {
	var b batch
	b.clear(nft.TableName)
	elements := make([]nft.Element, n)
	for i := range elements {
		at := first + i
		elements[i] = nft.Element{Set: nft.ClusterIPs, Key: nft.Key{Addr: netip.AddrFrom4([4]byte{10, byte(at >> 16), byte(at >> 8), byte(at)})}}
	}
	b.elements(unix.NFT_MSG_NEWSETELEM, nft.IPv4, elements, nil)
	return b.buf
}

// generation is the notification that ends a transaction.
func generation(by string) []byte {
	var b batch
	b.clear(nft.TableName)
	start := b.open(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN, 0, 0)
	b.buf = append(b.buf, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	b.u32(unix.NFTA_GEN_ID, 7)
	b.u32(unix.NFTA_GEN_PROC_PID, 42)
	b.str(unix.NFTA_GEN_PROC_NAME, by)
	b.close(start)
	return b.buf
}

// TestHearingBound: of a transaction with very many elements their set is remembered.
func TestHearingBound(t *testing.T) {
	var w hearing
	const parts, each = 100, 500
	for i := range parts {
		if _, err := messages(added(i*each, each), func(h header, body []byte) bool {
			if f, ok := w.message(h, body); ok {
				t.Errorf("it ended early: %+v", f)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
	}
	var got nft.Foreign
	_, err := messages(generation("somebody"), func(h header, body []byte) bool { got, _ = w.message(h, body); return true })
	if err != nil || len(got.Touched) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if n := len(got.Touched[0].Elements); n != nft.MaxTouched || fmt.Sprint(got.Touched[0].Sets) != "[KUBE-CLUSTER-IP]" {
		t.Errorf("%d elements and sets %v", n, got.Touched[0].Sets)
	}
	if want := (nft.Process{PID: 42, Name: "somebody"}); got.By != want || got.Generation != 7 || got.By.String() != "somebody (pid 42)" {
		t.Errorf("by %v, generation %d", got.By, got.Generation)
	}
}
