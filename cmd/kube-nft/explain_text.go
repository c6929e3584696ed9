// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kube-nft/kube-nft/controller/explain"
)

// text writes the report for people.
func (r *packetReport) text(w io.Writer) {
	fmt.Fprintf(w, "%s to %s/%s", r.from(), r.Packet.Destination, r.Protocol)
	if r.Frontend != "" {
		fmt.Fprintf(w, ", %s", r.Frontend)
	}
	fmt.Fprintf(w, "\n%s\n", r.verdict())
	if len(r.Candidates) > 0 {
		fmt.Fprintln(w)
		r.candidates(w)
	}
	r.affinity(w)
	fmt.Fprintln(w, "\nStep by step")
	stepsText(w, r.Steps)
	for _, b := range sameSteps(r.Then) {
		r.branch(w, b)
	}
	r.remarks(w)
}

func (r *packetReport) from() string {
	p := r.Packet
	switch {
	case p.Origin == explain.Node && p.Source.IsValid():
		return "From a process on this node, " + p.Source.String() + ","
	case p.Origin == explain.Node:
		return "From a process on this node"
	case p.Origin == explain.Outside:
		return "From outside"
	case p.Interface != "":
		return fmt.Sprintf("From %s, by %s,", p.Source, p.Interface)
	}
	return "From " + p.Source.String()
}

// verdict is the answer in a line or two.
func (r *packetReport) verdict() string {
	var words []string
	for _, f := range r.Fates {
		switch f {
		case explain.ToEndpoint:
			words = append(words, fmt.Sprintf("is sent to %s", several(len(r.Ends), "endpoint")))
		case explain.Rejected:
			words = append(words, "is REJECTED: ICMP port unreachable, which a client reports as connection refused")
		case explain.Dropped:
			words = append(words, "is DROPPED, without an answer: a client runs into its timeout")
		case explain.ToHost:
			words = append(words, "goes to a process of this host, as it came")
		case explain.Forwarded:
			words = append(words, "is forwarded as it came")
		case explain.Unroutable:
			words = append(words, "has NO WAY")
		}
	}
	s := "  A new connection " + strings.Join(words, ", or ") + "."
	if why := strings.TrimPrefix(strings.TrimPrefix(r.Why, "rejected: "), "dropped: "); why != "" {
		s += "\n  Because: " + why + "."
	}
	if lost := r.lost(); lost != "" {
		s += "\n  BUT " + lost + ": see the other tables below."
	}
	if len(r.OnlyFrom) > 0 {
		s += fmt.Sprintf("\n  If its source is in %s: all others are dropped before.", join(r.OnlyFrom))
	}
	return s
}

// lost says that another table certainly does not let the packet pass.
func (r *packetReport) lost() string {
	for _, o := range r.Others {
		switch {
		case !o.Sure || o.Action != "drop" && o.Action != "reject":
		case len(o.Endpoints) > 0:
			return fmt.Sprintf("another table does %s it on the way to %s", o.Action, few(o.Endpoints))
		default:
			return fmt.Sprintf("another table does %s it", o.Action)
		}
	}
	return ""
}

func several(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("one of %d %ss", n, what)
}

func join[T fmt.Stringer](all []T) string {
	words := make([]string, len(all))
	for i, v := range all {
		words[i] = v.String()
	}
	return strings.Join(words, ", ")
}

// candidates writes the endpoints, in and out.
func (r *packetReport) candidates(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "  ENDPOINT\tTAKES\tSHARE\tBECAUSE\tSEES")
	for _, c := range r.Candidates {
		takes, share, sees := "no", "-", "-"
		if c.In {
			takes, share = "yes", fmt.Sprintf("%.1f %%", 100*c.Share)
		}
		if i := slices.IndexFunc(r.Ends, func(e explain.End) bool { return e.Endpoint == c.Endpoint }); i >= 0 {
			sees = seesText(r.Ends[i])
		}
		why := c.Why
		if why == "" {
			why = "in the table"
		}
		if c.In != c.Wanted && r.Remembered == nil {
			why += " (DRIFT)"
		}
		if c.Here {
			why += ", on this node"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", c.Endpoint, takes, share, why, sees)
	}
	t.Flush()
	for _, why := range r.masquerade() {
		fmt.Fprintf(w, "  %s\n", why)
	}
}

func seesText(e explain.End) string {
	switch {
	case e.Fate != explain.ToEndpoint:
		return string(e.Fate)
	case e.Masqueraded && e.Sees.IsValid():
		return e.Sees.String() + ", masqueraded"
	case e.Masqueraded:
		return "masqueraded"
	case e.Sees.IsValid():
		return e.Sees.String() + ", as it is"
	}
	return "the client's address"
}

// masquerade lists why endpoints see what they see, each reason once.
func (r *packetReport) masquerade() []string {
	var all []string
	for _, e := range r.Ends {
		if why := "Source: " + e.Why + "."; e.Why != "" && !slices.Contains(all, why) {
			all = append(all, why)
		}
	}
	return all
}

func (r *packetReport) affinity(w io.Writer) {
	switch {
	case r.Remembered != nil:
		m := r.Remembered
		fmt.Fprintf(w, "  Session affinity: the client stays with %s for %s more, and %s from each new connection on.\n",
			m.Endpoint, m.Left.Round(time.Second), m.Timeout)
	case r.Affinity && r.Packet.Source.IsValid():
		fmt.Fprintln(w, "  Session affinity: the client is not remembered; this connection decides where its next ones go.")
	case r.Affinity:
		fmt.Fprintln(w, "  Session affinity: a client that was here before goes to its endpoint again.")
	}
}

// stepsText writes steps, under their hooks.
func stepsText(w io.Writer, steps []explain.Step) {
	at := ""
	for _, s := range steps {
		if hook := fmt.Sprintf("%s, priority %d", s.Hook, s.Priority); hook != at {
			at = hook
			fmt.Fprintf(w, "  %s\n", hook)
		}
		sign := "-"
		if s.Hit {
			sign = "+"
		}
		fmt.Fprintf(w, "  %s %s: %s\n", sign, s.Chain, s.Rule)
		if s.Element != "" {
			fmt.Fprintf(w, "      %s\n", s.Element)
		}
		fmt.Fprintf(w, "      %s\n", s.Says)
	}
}

// sameSteps puts branches together whose rules are the same, whatever device each
// leaves by: that is for other tables to mind, which are written of by themselves.
func sameSteps(all []explain.Branch) (together []explain.Branch) {
	for _, b := range all {
		i := slices.IndexFunc(together, func(o explain.Branch) bool {
			return o.Fate == b.Fate && slices.Equal(o.Steps, b.Steps) && (len(o.Endpoints) > 0) == (len(b.Endpoints) > 0)
		})
		if i < 0 {
			b.Endpoints = slices.Clone(b.Endpoints)
			together = append(together, b)
			continue
		}
		together[i].Endpoints = append(together[i].Endpoints, b.Endpoints...)
	}
	return together
}

// branch writes the steps behind translation.
func (r *packetReport) branch(w io.Writer, b explain.Branch) {
	switch {
	case len(b.Endpoints) == 0 && len(r.Ends) > 0:
		fmt.Fprintln(w, "  then, if it finds no endpoint")
	case len(b.Endpoints) == len(r.Ends) || len(b.Endpoints) == 0:
	default:
		fmt.Fprintf(w, "  then, to %s\n", few(b.Endpoints))
	}
	stepsText(w, b.Steps)
}

// maxFew is how many of many are named.
const maxFew = 8

func few(all []netip.AddrPort) string {
	if len(all) <= maxFew {
		return join(all)
	}
	return fmt.Sprintf("%s and %d others", join(all[:maxFew]), len(all)-maxFew)
}

// remarks writes what does not concern the packet's way alone.
func (r *packetReport) remarks(w io.Writer) {
	if len(r.Claims) > 0 {
		fmt.Fprintln(w, "\nOthers claim this address and port")
		for _, c := range r.Claims {
			if c.Granted {
				fmt.Fprintf(w, "  %s has it, as %s\n", c.Service, c.Kind)
			} else {
				fmt.Fprintf(w, "  %s does not get it, as %s\n", c.Service, c.Kind)
			}
		}
	}
	r.othersText(w)
	driftText(w, r.Drift, r.KubeNFT)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\nNote: %s.\n", n)
	}
}

// driftText writes in what the kernel differs, or who cannot tell.
func driftText(w io.Writer, drift []string, from informant) {
	switch {
	case from.Missing != "":
		fmt.Fprintf(w, "\nNot known: why endpoints are in or out, and whether the kernel has what it should: %s.\n", from.Missing)
	case len(drift) == 0:
		fmt.Fprintf(w, "\nThe kernel has what it should, says %s.\n", from.Whence)
	default:
		fmt.Fprintf(w, "\nDRIFT: the kernel differs from what it should have, says %s\n", from.Whence)
		for _, d := range drift {
			fmt.Fprintf(w, "  %s\n", d)
		}
	}
}
