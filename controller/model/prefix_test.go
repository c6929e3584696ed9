// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// prefixes reads prefixes with blanks between; nil for none.
func prefixes(s string) (all []netip.Prefix) {
	for _, word := range strings.Fields(s) {
		all = append(all, netip.MustParsePrefix(word))
	}
	return all
}

func TestDisjoint(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"none", "", ""},
		{"sorted", "10.1.0.0/16 fd00::/64 10.0.0.0/16", "10.0.0.0/16 10.1.0.0/16 fd00::/64"},
		{"masked", "10.0.0.9/8 fd00::9/64", "10.0.0.0/8 fd00::/64"},
		{"twice", "10.0.0.0/8 10.0.0.0/8 10.9.0.0/8", "10.0.0.0/8"},
		{"inside", "10.1.0.0/16 10.0.0.0/8 10.1.2.0/24 10.255.255.255/32", "10.0.0.0/8"},
		{"inside one of two", "10.0.0.0/24 10.0.1.0/24 10.0.1.128/25", "10.0.0.0/24 10.0.1.0/24"},
		{"neighbours stay", "10.0.0.0/25 10.0.0.128/25", "10.0.0.0/25 10.0.0.128/25"},
		{"everything of a family", "::/0 10.0.0.0/8 fd00::/8", "10.0.0.0/8 ::/0"},
		{"mapped", "::ffff:10.0.0.0/104 10.1.0.0/16", "10.0.0.0/8"},
		{"all that is mapped", "::ffff:0.0.0.0/96", "0.0.0.0/0"},
		{"more than mapped", "::ffff:0.0.0.0/95", "::fffe:0:0/95"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got, want := Disjoint(prefixes(tc.in)), prefixes(tc.want); !slices.Equal(got, want) {
				t.Errorf("Disjoint(%s) = %v, want %v", tc.in, got, want)
			}
		})
	}
	if got := Disjoint([]netip.Prefix{{}, netip.PrefixFrom(addr("10.0.0.1"), 33)}); len(got) > 0 {
		t.Errorf("invalid prefixes came through: %v", got)
	}
}

// TestDisjointProperty compares with brute force where all prefixes meet: among
// 256 addresses of each family, the IPv4 ones in either form.
func TestDisjointProperty(t *testing.T) {
	bases := []netip.Addr{addr("10.0.0.0"), addr("fd00::"), addr("::ffff:10.0.0.0")}
	at := func(base netip.Addr, last byte) netip.Addr {
		b := base.AsSlice()
		b[len(b)-1] = last
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := at(rapid.SampledFrom(bases).Draw(t, "base"), rapid.Byte().Draw(t, "last"))
		return netip.PrefixFrom(a, a.BitLen()-rapid.IntRange(0, 8).Draw(t, "free"))
	})
	holds := func(all []netip.Prefix, a netip.Addr) (n int) {
		for _, p := range all {
			if p.Contains(a) {
				n++
			}
		}
		return n
	}
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOfN(prefix, 0, 12).Draw(t, "in")
		before := slices.Clone(in)
		out := Disjoint(in)
		if !slices.Equal(in, before) {
			t.Fatal("the argument was changed")
		}
		if !slices.IsSortedFunc(out, netip.Prefix.Compare) {
			t.Fatalf("%v is not sorted", out)
		}
		for _, p := range out {
			if p != p.Masked() || p.Addr().Is4In6() {
				t.Fatalf("%v is not masked and unmapped", p)
			}
		}
		for last := range 256 {
			v4, v6 := at(bases[0], byte(last)), at(bases[1], byte(last))
			mapped := at(bases[2], byte(last))
			if got, want := holds(out, v4), min(1, holds(in, v4)+holds(in, mapped)); got != want {
				t.Fatalf("%v is in %d of %v, want %d", v4, got, out, want)
			}
			if got, want := holds(out, v6), min(1, holds(in, v6)); got != want {
				t.Fatalf("%v is in %d of %v, want %d", v6, got, out, want)
			}
		}
	})
}
