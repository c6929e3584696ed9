// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/nft"
)

func TestParseNodePorts(t *testing.T) {
	cases := []struct {
		words    []string
		all4     bool
		all6     bool
		addrs    []string
		problems []string
	}{
		{nil, false, false, []string{"203.0.113.7", "2001:db8::7"}, nil},
		{[]string{"primary"}, false, false, []string{"203.0.113.7", "2001:db8::7"}, nil},
		{[]string{"all"}, true, true, nil, nil},
		{[]string{"0.0.0.0/0"}, true, true, nil, nil},
		{[]string{"203.0.113.0/24", "0.0.0.0/0", "2001:db8::/32"}, true, false, nil, nil},
		{[]string{"203.0.113.0/24"}, false, true, []string{"203.0.113.7", "203.0.113.8"}, nil},
		{[]string{"203.0.113.8/32", "2001:db8::/32"}, false, false, []string{"203.0.113.8", "2001:db8::7"}, nil},
		{[]string{"127.0.0.0/8", "::1/128"}, false, false, nil, nil},
		{[]string{"localhost"}, false, false, nil, nil},
		{[]string{"primary", "203.0.113.0/24"}, false, false, []string{"203.0.113.7", "2001:db8::7", "203.0.113.8"}, nil},
		{[]string{"primary", "localhost"}, false, false, []string{"203.0.113.7", "2001:db8::7"}, nil},
		{[]string{"primary", "::/0"}, false, true, []string{"203.0.113.7", "2001:db8::7"}, nil},
		{[]string{"localhost", "all"}, true, true, nil, nil},
		{[]string{"primary", "primary", "x"}, false, false, nil, []string{`"primary" is there twice`, `"x" is neither`}},
	}
	local := []netip.Addr{}
	for _, s := range []string{"127.0.0.1", "203.0.113.7", "203.0.113.8", "::1", "2001:db8::7"} {
		local = append(local, netip.MustParseAddr(s))
	}
	node := &model.Node{Addrs: [model.Families]netip.Addr{local[1], local[4]}}
	for _, tc := range cases {
		t.Run(strings.Join(tc.words, ","), func(t *testing.T) {
			n, err := ParseNodePorts(tc.words)
			for _, p := range tc.problems {
				if err == nil || !strings.Contains(err.Error(), p) {
					t.Errorf("error %v does not say %q", err, p)
				}
			}
			if len(tc.problems) > 0 {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n.All(nft.IPv4) != tc.all4 || n.All(nft.IPv6) != tc.all6 {
				t.Errorf("All = %t, %t", n.All(nft.IPv4), n.All(nft.IPv6))
			}
			var got []string
			for _, a := range n.Addrs(node, local) {
				got = append(got, a.String())
			}
			if tc.addrs != nil && !slices.Equal(got, tc.addrs) {
				t.Errorf("Addrs = %v, want %v", got, tc.addrs)
			}
		})
	}
}
