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
	"github.com/kube-nft/kube-nft/tests/tables"
)

// tablesOf reads what kube-nft has in a namespace and returns it as lines, in
// which the order of slots does not matter; a gap between slots is a line.
func tablesOf(n *netlab.Namespace) ([]string, error) {
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
		lines = append(lines, tables.Lines(f, contents)...)
	}
	return lines, nil
}

// sameTables waits until two namespaces hold the same.
func sameTables(t *testing.T, a, b *netlab.Namespace) {
	t.Helper()
	err := netlab.Poll(10*time.Second, func() error {
		have, err := tablesOf(a)
		if err != nil {
			return fmt.Errorf("%s: %w", a.Name(), err)
		}
		want, err := tablesOf(b)
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
