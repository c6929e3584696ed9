// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// tables reads what kube-nft has in a namespace and returns it as lines, in
// which the order of slots does not matter; a gap between slots is a line.
func tables(n *netlab.Namespace) ([]string, error) {
	conn, err := kernel.Open(kernel.Options{NetNS: n.Fd()})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var lines []string
	for i, cidr := range strings.Split(clusterCIDR, ",") {
		f := nft.Families[i]
		options := nft.Options{
			MasqueradeBit: nft.DefaultMasqueradeBit,
			LocalPods:     nft.LocalPods{Prefix: netip.MustParsePrefix(cidr)},
			Counters:      true,
		}
		contents, err := conn.Read(context.Background(), nft.NewSchema(f, options))
		if err != nil {
			return nil, err
		}
		lines = append(lines, tableLines(f, contents)...)
	}
	return lines, nil
}

func tableLines(f nft.Family, contents nft.Contents) (lines []string) {
	type frontend struct {
		set nft.Set
		key nft.Key
	}
	slots := make(map[frontend]uint32)
	for _, e := range contents.Sorted() {
		if !e.Set.HoldsEndpoints() {
			lines = append(lines, fmt.Sprint(f, " ", e))
			continue
		}
		slot := e.Key.Slot
		e.Key.Slot = 0
		if want := slots[frontend{e.Set, e.Key}]; slot != want {
			lines = append(lines, fmt.Sprintf("%s %v is in slot %d, slot %d is empty", f, e, slot, want))
		}
		slots[frontend{e.Set, e.Key}] = slot + 1
		lines = append(lines, fmt.Sprint(f, " ", e))
	}
	slices.Sort(lines)
	return lines
}

// sameTables waits until two namespaces hold the same.
func sameTables(t *testing.T, a, b *netlab.Namespace) {
	t.Helper()
	err := netlab.Poll(10*time.Second, func() error {
		have, err := tables(a)
		if err != nil {
			return fmt.Errorf("%s: %w", a.Name(), err)
		}
		want, err := tables(b)
		if err != nil {
			return fmt.Errorf("%s: %w", b.Name(), err)
		}
		if slices.Equal(have, want) {
			return nil
		}
		missing, extra := without(want, have), without(have, want)
		return fmt.Errorf("of %s %s lacks %d lines %q, and has %d besides %q", b.Name(), a.Name(),
			len(missing), missing[:min(5, len(missing))], len(extra), extra[:min(5, len(extra))])
	})
	if err != nil {
		t.Fatal(err)
	}
}

// without returns the lines of a that are not in b.
func without(a, b []string) (rest []string) {
	in := make(map[string]bool, len(b))
	for _, line := range b {
		in[line] = true
	}
	for _, line := range a {
		if !in[line] {
			rest = append(rest, line)
		}
	}
	return rest
}
