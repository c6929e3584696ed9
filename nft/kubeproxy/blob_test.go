// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"testing"

	"github.com/kube-nft/kube-nft/nft"
)

// FuzzBlob feeds the reader of tables of xtables, and edits what it takes.
func FuzzBlob(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(make([]byte, 176), false)
	f.Fuzz(func(t *testing.T, data []byte, six bool) {
		b := &blob{family: nft.IPv4, name: "filter"}
		if six {
			b.family = nft.IPv6
		}
		if b.parse(data) != nil {
			return
		}
		if _, out, from := b.without(); len(out) > len(data) || len(from) > len(b.entries) {
			t.Errorf("%d entries of %d bytes from %d of %d", len(from), len(out), len(b.entries), len(data))
		}
	})
}

// FuzzRule feeds the reader of rules of nf_tables.
func FuzzRule(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(text(2, "KUBE-SERVICES"), 8, 0, 7, 0, 0, 2, 'x', 0))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, family := range nft.Families {
			table, r := parseRule(family, body)
			if frontend, ok := r.frontend(family, table); ok && frontend.Port == 0 {
				t.Errorf("a frontend without a port: %v", frontend)
			}
		}
	})
}
