// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
)

// TestConnections: every frontend is told with what it has counted, from whichever
// map, also those that nobody serves.
func TestConnections(t *testing.T) {
	for _, f := range nft.Families {
		t.Run(f.String(), func(t *testing.T) { checkConnections(t, f) })
	}
}

func checkConnections(t *testing.T, f nft.Family) {
	lab, ns, conn, _ := programmed(t)
	scraper := open(t, ns)
	read := func() (map[string]uint64, bool) {
		t.Helper()
		got := make(map[string]uint64)
		whole, err := scraper.Connections(ctx, f, func(_ uint64, e nft.Element, n uint64) {
			got[fmt.Sprintf("%s %s %s", e.Set, e.Key.Proto, e.Value.Comment)] = n
		})
		lab.Must(err)
		return got, whole
	}
	if f == nft.IPv6 {
		if got, whole := read(); len(got) != 0 || !whole {
			t.Errorf("without a table: %v, whole %v", got, whole)
		}
	}
	lab.Must(conn.Reset(ctx, sample(nft.NewSchema(f, options(f)).With(nft.LocalPolicy))))
	service, public := address(f, "service", 10), address(f, "public", 81)
	for _, e := range []string{
		fmt.Sprintf("KUBE-SERVICES { %s . udp . 53 counter packets 7 bytes 500 comment \"kube-system/kube-dns:dns\" : goto KUBE-SVC-3 }", service),
		"KUBE-NODEPORTS { tcp . 30080 counter packets 8 bytes 500 comment \"default/web:http\" : goto KUBE-NODEPORT-2 }",
		fmt.Sprintf("KUBE-XLB { %s . tcp . 80 counter packets 9 bytes 500 comment \"default/local:http\" : goto KUBE-XLB-1 }", public),
		"KUBE-XLB-NODEPORTS { tcp . 30082 counter packets 10 bytes 500 comment \"default/local:http\" : goto KUBE-XLB-NODEPORT-1 }",
	} {
		lab.Must(ns.NFT(fmt.Sprintf("delete element %s kube-nft %s\nadd element %s kube-nft %s", f, e, f, e)))
	}
	want := map[string]uint64{
		"KUBE-SERVICES udp kube-system/kube-dns:dns":         7,
		"KUBE-NODEPORTS tcp default/web:http":                8,
		"KUBE-XLB tcp default/local:http":                    9,
		"KUBE-XLB-NODEPORTS tcp default/local:http":          10,
		"KUBE-XLB tcp default/local:none-here":               0,
		"KUBE-SERVICES tcp default/web:http":                 0,
		"KUBE-SERVICES tcp default/local:http":               0,
		"KUBE-NODEPORTS tcp default/local:http":              0,
		"KUBE-NO-ENDPOINTS sctp default/empty:http":          0,
		"KUBE-NO-ENDPOINTS-NODEPORTS tcp default/empty:http": 0,
	}
	got, whole := read()
	if d := cmp.Diff(want, got); d != "" || !whole {
		t.Errorf("whole %v, -want +got:\n%s", whole, d)
	}
}

// TestConnectionsOfTables: a table made anew, in whichever way, is another one.
func TestConnectionsOfTables(t *testing.T) {
	lab, _, conn, s := programmed(t)
	seen := make(map[uint64]bool)
	read := func() {
		t.Helper()
		_, err := conn.Connections(ctx, nft.IPv4, func(table uint64, _ nft.Element, _ uint64) { seen[table] = true })
		lab.Must(err)
	}
	read()
	lab.Must(conn.Apply(ctx, change(s, nft.Delta{Add: []nft.Element{slot(9, "10.128.1.9:53")}})))
	read()
	if len(seen) != 1 || seen[0] {
		t.Errorf("one table has the numbers %v", seen)
	}
	lab.Must(conn.Reset(ctx, sample(s)))
	read()
	_, err := conn.Delete(ctx, nft.IPv4)
	lab.Must(err, conn.Reset(ctx, sample(s)))
	read()
	if len(seen) != 3 {
		t.Errorf("three tables have the numbers %v", seen)
	}
}

// TestConnectionsInterrupted: a dump beside which something changed may lack
// elements, and is not called whole.
func TestConnectionsInterrupted(t *testing.T) {
	lab, ns, _, _ := programmed(t)
	scraper := open(t, ns)
	n := 0
	whole, err := scraper.Connections(ctx, nft.IPv4, func(uint64, nft.Element, uint64) {
		n++
		lab.Must(ns.NFT(fmt.Sprintf("add table ip neighbour%d", n)))
	})
	lab.Must(err)
	if whole {
		t.Error("the dump is called whole")
	}
	first := n
	if whole, err = scraper.Connections(ctx, nft.IPv4, func(uint64, nft.Element, uint64) { n++ }); err != nil || !whole || n >= 2*first {
		t.Errorf("the next one: %d elements after %d, whole %v, %v", n-first, first, whole, err)
	}
}
