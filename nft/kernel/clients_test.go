// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestAffinityClients: the clients of every Service port that remembers them are
// counted, and nothing is if there is nothing.
func TestAffinityClients(t *testing.T) {
	lab := netlab.NewT(t)
	ns := lab.Namespace("node")
	conn, scraper := open(t, ns), open(t, ns)
	s := nft.NewSchema(nft.IPv4, options(nft.IPv4)).With(nft.ClientAffinity | nft.LocalAffinity)
	expect := func(f nft.Family, want map[nft.Port]int) {
		t.Helper()
		got, err := scraper.AffinityClients(ctx, f)
		if errors.Is(err, nft.ErrUncounted) {
			t.Skip(err)
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	expect(nft.IPv4, nil) // there is no table
	other := nft.Affinity{Port: nft.PortOf("default/other/udp"), Proto: nft.UDP, Timeout: 60, Ways: nft.Ways(0).With(nft.AffinityService)}
	table := sample(s)
	table.Affinities = append(table.Affinities, other)
	lab.Must(conn.Reset(ctx, table))
	expect(nft.IPv4, map[nft.Port]int{sticky().Port: 0, other.Port: 0})
	lab.Must(
		ns.NFT(remembering(sticky().Maps()[0], 7)),
		ns.NFT(remembering(sticky().Maps()[1], 3000)),
		ns.NFT(remembering(other.Maps()[0], 1)),
		ns.NFT("add table ip neighbour\nadd set ip neighbour KUBE-AFFINITY-default/not/tcp { type ipv4_addr; }"),
	)
	expect(nft.IPv4, map[nft.Port]int{sticky().Port: 3000, other.Port: 1})
	expect(nft.IPv6, nil)
}

// remembering is a script that notes n clients in a map.
func remembering(name string, n int) string {
	var entries []string
	for i := range n {
		entries = append(entries, fmt.Sprintf("198.18.%d.%d timeout 1h : 10.128.1.2 . 8080", i>>8, i&255))
	}
	return fmt.Sprintf("add element ip kube-nft %s { %s }", name, strings.Join(entries, ", "))
}
