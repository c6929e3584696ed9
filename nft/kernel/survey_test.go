// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// comparable compares values of the table by ==.
var comparable = cmp.Options{
	cmp.Comparer(func(a, b nft.Key) bool { return a == b }),
	cmp.Comparer(func(a, b nft.Value) bool { return a == b }),
	cmp.Comparer(func(a, b nft.Affinity) bool { return a == b }),
}

// TestSurvey: who knows nothing of a table reads the same as who knows its schema.
func TestSurvey(t *testing.T) {
	cases := []struct {
		name     string
		change   func(nft.Family, *nft.Options)
		features nft.Features
	}{
		{"default", nil, 0},
		{"everything", nil, nft.AllFeatures},
		{"odd prefix", func(f nft.Family, o *nft.Options) {
			o.LocalPods.Prefix = netip.MustParsePrefix(map[nft.Family]string{nft.IPv4: "10.128.64.0/18", nft.IPv6: "fd00:128::/45"}[f])
		}, nft.LocalPolicy},
		{"no length", func(f nft.Family, o *nft.Options) {
			o.LocalPods.Prefix = netip.PrefixFrom(o.LocalPods.Prefix.Addr(), 0).Masked()
		}, 0},
		{"one address", func(f nft.Family, o *nft.Options) {
			o.LocalPods.Prefix = netip.PrefixFrom(address(f, "pod", 1), address(f, "pod", 1).BitLen())
		}, 0},
		{"interfaces", func(_ nft.Family, o *nft.Options) { o.LocalPods = nft.LocalPods{Interface: "veth*"} }, nft.LocalPolicy},
		{"bridge", func(_ nft.Family, o *nft.Options) { o.LocalPods = nft.LocalPods{Interface: "cni0"} }, 0},
		{"nothing known of pods", func(_ nft.Family, o *nft.Options) { o.LocalPods = nft.LocalPods{} }, nft.LocalPolicy},
		{"masquerade all", func(_ nft.Family, o *nft.Options) { o.MasqueradeAll, o.LocalPods = true, nft.LocalPods{} }, 0},
		{"masquerade all under a policy Local", func(_ nft.Family, o *nft.Options) { o.MasqueradeAll = true }, nft.LocalPolicy},
		{"another bit, all node ports, no counters", func(_ nft.Family, o *nft.Options) {
			o.MasqueradeBit, o.AllNodePorts, o.Counters = 31, true, false
		}, nft.AllFeatures},
		{"the first bit", func(_ nft.Family, o *nft.Options) { o.MasqueradeBit = 0 }, 0},
	}
	lab, ns, conn, _ := programmed(t)
	surveyor := open(t, ns)
	for _, tc := range cases {
		for _, f := range nft.Families {
			t.Run(tc.name+" "+f.String(), func(t *testing.T) {
				o := options(f)
				if tc.change != nil {
					tc.change(f, &o)
				}
				s := nft.NewSchema(f, o).With(tc.features)
				lab.Must(conn.Reset(ctx, sample(s)))
				want, err := conn.Read(ctx, s)
				lab.Must(err)
				found, err := surveyor.Survey(ctx, f, func(uint64, nft.Element, uint64) {})
				lab.Must(err, surveyor.SurveyEndpoints(ctx, found, func(nft.Element) bool { return true }))
				if found.Altered != nil || !found.Whole {
					t.Errorf("altered: %v, whole: %v", found.Altered, found.Whole)
				}
				if d := cmp.Diff(want, found.Contents, comparable); d != "" {
					t.Errorf("-read +found:\n%s", d)
				}
				if found.Schema.Options != o {
					t.Errorf("options %+v, want %+v", found.Schema.Options, o)
				}
				for set, n := range found.Counts {
					if n != len(want.Elements[set]) {
						t.Errorf("%d elements in %s, want %d", n, nft.Set(set), len(want.Elements[set]))
					}
				}
			})
		}
	}
}

// TestSurveySome: endpoints are read of those frontends that are wanted.
func TestSurveySome(t *testing.T) {
	lab, ns, _, _ := programmed(t)
	surveyor := open(t, ns)
	counted := 0
	found, err := surveyor.Survey(ctx, nft.IPv4, func(_ uint64, e nft.Element, _ uint64) { counted++ })
	lab.Must(err)
	if counted == 0 || len(found.Contents.Elements[nft.Endpoints]) != 0 {
		t.Errorf("%d frontends, %d endpoints", counted, len(found.Contents.Elements[nft.Endpoints]))
	}
	lab.Must(surveyor.SurveyEndpoints(ctx, found, func(e nft.Element) bool { return e.Value.Comment == "kube-system/kube-dns:dns" }))
	if n := len(found.Contents.Elements[nft.Endpoints]); n != 3 {
		t.Errorf("%d endpoints, want 3", n)
	}
	lab.Must(ns.NFT("add table ip neighbour"))
	if err := surveyor.SurveyEndpoints(ctx, found, func(nft.Element) bool { return true }); err != nil || found.Whole {
		t.Errorf("it is called whole: %v, %v", found.Whole, err)
	}
}

// TestSurveyTells: what is not as it should be is told.
func TestSurveyTells(t *testing.T) {
	lab, ns, conn, s := programmed(t)
	survey := func() (*kernel.Survey, error) {
		return conn.Survey(ctx, nft.IPv4, func(uint64, nft.Element, uint64) {})
	}
	for name, change := range map[string][]string{
		"a rule more":         {"add rule ip kube-nft KUBE-SERVICES counter"},
		"a chain more":        {"add chain ip kube-nft mine"},
		"no rules":            {"flush chain ip kube-nft KUBE-MARK-MASQ", "flush chain ip kube-nft KUBE-SVC-1"},
		"a table that sleeps": {"add table ip kube-nft { flags dormant; }"},
	} {
		t.Run(name, func(t *testing.T) {
			lab.Must(conn.Reset(ctx, sample(s)))
			lab.Must(ns.NFT(strings.Join(change, "\n")))
			found, err := survey()
			if err != nil || !errors.Is(found.Altered, nft.ErrSchema) || len(found.Contents.Elements[nft.Services]) == 0 {
				t.Errorf("%v, altered: %v", err, found.Altered)
			}
		})
	}
	for name, tc := range map[string]struct {
		comment string
		want    error
	}{
		"of another version": {nft.Comment(nft.Version + 1), nft.ErrSchema},
		"somebody else's":    {"my own", nft.ErrForeign},
	} {
		t.Run(name, func(t *testing.T) {
			lab.Must(ns.NFT("delete table ip kube-nft\n" + fmt.Sprintf("add table ip kube-nft { comment %q; }", tc.comment)))
			if _, err := survey(); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
	lab.Must(ns.NFT("delete table ip kube-nft"))
	if _, err := survey(); !errors.Is(err, nft.ErrMissing) {
		t.Errorf("got %v, want %v", err, nft.ErrMissing)
	}
}
