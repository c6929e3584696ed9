// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/kube-nft/kube-nft/controller/explain"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/ruleset"
)

// other is what a table of somebody else does, or may do, to the packet.
type other struct {
	Hook     string `json:"hook"`
	Priority int32  `json:"priority"`
	Place    string `json:"place"`
	// Action is a word of nft: drop, reject, dnat, masquerade, notrack …
	Action string `json:"action"`
	// Sure: it does; else it depends on what is not known of the packet, or on
	// conditions that are not understood.
	Sure bool `json:"sure"`
	// Endpoints are those on the way to which it happens; none: on every way.
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
}

// maxWays bounds the ways that are followed through other tables: where there are more
// endpoints than that, nearly all ways are alike.
const maxWays = 64

// others asks the tables of others about the packet's ways.
func (r *packetReport) others(ctx context.Context) error {
	tables, err := ruleset.List(ctx)
	if errors.Is(err, ruleset.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the tables of others: %w", noTable(err))
	}
	legacy, err := ruleset.ListLegacy("/proc")
	if err != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("the rules of iptables-legacy cannot be read, and may do anything: %v", err))
	}
	tables = append(tables, legacy...)
	ways := 0
	for _, b := range r.Then {
		for _, endpoint := range append([]netip.AddrPort{{}}, b.Endpoints...) {
			if !endpoint.IsValid() && len(b.Endpoints) > 0 || ways == maxWays {
				continue
			}
			ways++
			for _, p := range b.Passages {
				if p.Translated {
					p.Destination = endpoint
				}
				for _, t := range tables {
					r.askTable(t, p, endpoint)
				}
			}
		}
	}
	slices.SortStableFunc(r.Others, func(a, b other) int {
		return cmp.Or(cmp.Compare(hookOrder[a.Hook], hookOrder[b.Hook]), cmp.Compare(a.Priority, b.Priority))
	})
	for i := range r.Others {
		if len(r.Others[i].Endpoints) == len(r.Ends) || ways == maxWays {
			r.Others[i].Endpoints = nil
		}
	}
	return nil
}

// hookOrder is the order in which packets pass the hooks.
var hookOrder = map[string]int{"prerouting": 0, "output": 1, "forward": 2, "input": 3, "postrouting": 4}

// natPriority is where our tables translate destinations.
const natPriority = -100

// askTable asks the base chains of a table at a hook.
func (r *packetReport) askTable(t *ruleset.Table, p explain.Passage, endpoint netip.AddrPort) {
	family := ruleset.Family(nft.FamilyOf(p.Destination.Addr()))
	if t.Name == nft.TableName && t.Family == family || !t.Family.Sees(family) {
		return
	}
	packet := ruleset.Packet{Family: family, In: p.In, Out: p.Out, Proto: uint8(r.Packet.Protocol), New: true}
	if p.Source.IsValid() {
		packet.Source = netip.PrefixFrom(p.Source, p.Source.BitLen())
	}
	for _, base := range t.Base() {
		if base.Hook != p.Hook {
			continue
		}
		at, translated := p.Destination, p.Translated
		if early := p.Hook == "prerouting" || p.Hook == "output"; early && base.Priority > natPriority && endpoint.IsValid() {
			at, translated = endpoint, true
		}
		if base.Type == "nat" && translated && (p.Hook == "prerouting" || p.Hook == "output") {
			continue // conntrack asks no other one, once there is a translation
		}
		packet.Dest, packet.DestPort, packet.Translated = netip.PrefixFrom(at.Addr(), at.Addr().BitLen()), at.Port(), translated
		r.fate(t, base, t.Fate(base, packet), endpoint)
	}
}

// fate notes what a base chain does that matters.
func (r *packetReport) fate(t *ruleset.Table, base *ruleset.Chain, f ruleset.Fate, endpoint netip.AddrPort) {
	note := func(action string, at ruleset.Place, only bool) {
		o := other{Hook: base.Hook, Priority: base.Priority, Place: at.String(), Action: action, Sure: at.Sure && only}
		i := slices.IndexFunc(r.Others, func(e other) bool {
			return e.Hook == o.Hook && e.Priority == o.Priority && e.Place == o.Place && e.Action == o.Action && e.Sure == o.Sure
		})
		if i < 0 {
			r.Others = append(r.Others, o)
			i = len(r.Others) - 1
		}
		if endpoint.IsValid() && !slices.Contains(r.Others[i].Endpoints, endpoint) {
			r.Others[i].Endpoints = append(r.Others[i].Endpoints, endpoint)
		}
	}
	for _, a := range []ruleset.Action{ruleset.Drop, ruleset.Reject, ruleset.Queue, ruleset.DNAT, ruleset.Redirect, ruleset.TProxy, ruleset.SNAT, ruleset.Masquerade} {
		if at, ok := f.May[a]; ok {
			note(a.String(), at, !f.Pass && len(f.May) == 1)
		}
	}
	if f.NoTrack {
		note(ruleset.NoTrack.String(), f.NoTrackAt, true)
	}
}

// othersText writes what other tables do.
func (r *packetReport) othersText(w io.Writer) {
	switch {
	case len(r.Then) == 0:
		return
	case len(r.Others) == 0:
		fmt.Fprintln(w, "\nNo other table drops or translates it.")
		return
	}
	fmt.Fprintln(w, "\nOther tables on its way")
	for _, o := range r.Others {
		may := "may"
		if o.Sure {
			may = "does"
		}
		fmt.Fprintf(w, "  %s, priority %d: %s: %s %s", o.Hook, o.Priority, o.Place, may, o.Action)
		if len(o.Endpoints) > 0 {
			fmt.Fprintf(w, ", on the way to %s", few(o.Endpoints))
		}
		fmt.Fprintln(w)
	}
}
