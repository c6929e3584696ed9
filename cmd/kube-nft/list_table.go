// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
)

// none stands in a table for nothing, as in kubectl.
const none = "<none>"

// newTable writes columns as kubectl does. Names were checked by nobody but the API:
// what would move the cursor does not get through.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 6, 4, 3, ' ', 0) }

// row writes a line of a table.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		cells[i] = printable(cmp.Or(c, none))
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
}

// printable replaces what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// printTable writes a line for each Service port.
func (o *listOptions) printTable(ports []view.ServicePort) error {
	w := newTable(o.out)
	wide, namespaces := o.output == "wide", o.filter.Namespace == ""
	line := func(namespace string, more []string, cells ...string) {
		if namespaces {
			cells = append([]string{namespace}, cells...)
		}
		if wide {
			cells = append(cells, more...)
		}
		row(w, cells...)
	}
	if !o.noHeaders {
		line("NAMESPACE", []string{"AFFINITY", "SOURCES", "ENDPOINT-ADDRESSES"},
			"SERVICE", "PROTOCOL", "CLUSTER-IP", "EXTERNAL", "NODE-PORT", "ENDPOINTS", "STATE", "CONNECTIONS")
	}
	for i := range ports {
		p := &ports[i]
		var more []string
		if wide {
			more = []string{affinityText(p.Affinity), sourcesText(p), addrsText(p.Endpoints(), true)}
		}
		_, service, _ := strings.Cut(p.Name.String(), "/")
		line(p.Namespace, more, service, p.Protocol.String(), frontendsText(p, view.ClusterIP, wide), frontendsText(p, view.External, wide),
			nodePortText(p), sizeText(p), stateText(p), strconv.FormatUint(p.Connections(), 10))
	}
	return w.Flush()
}

// frontendsText lists the frontends of a kind; if it is to be short, how many others
// than the first there are.
func frontendsText(p *view.ServicePort, k view.Kind, all bool) string {
	var addrs []string
	for i := range p.Frontends {
		if p.Frontends[i].Kind == k {
			addrs = append(addrs, p.Frontends[i].String())
		}
	}
	return shorten(addrs, all)
}

func addrsText(addrs []netip.AddrPort, all bool) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return shorten(words, all)
}

func shorten(words []string, all bool) string {
	if all || len(words) < 2 {
		return strings.Join(words, ",")
	}
	return fmt.Sprintf("%s +%d", words[0], len(words)-1)
}

// nodePortText is the number of the port, which is the same in all families.
func nodePortText(p *view.ServicePort) string {
	for i := range p.Frontends {
		if p.Frontends[i].Kind == view.NodePort {
			return strconv.Itoa(int(p.Frontends[i].Port))
		}
	}
	return ""
}

// sizeText is how many endpoints there are: one number unless families differ.
func sizeText(p *view.ServicePort) string {
	var n [2]int
	var has [2]bool
	for i := range p.Frontends {
		f := &p.Frontends[i]
		at := 0
		if f.Family == nft.IPv6 {
			at = 1
		}
		has[at] = true
		for _, w := range f.Ways() {
			n[at] = max(n[at], len(w.Endpoints))
		}
	}
	if has[0] && has[1] && n[0] != n[1] {
		return fmt.Sprintf("%d v4, %d v6", n[0], n[1])
	}
	return strconv.Itoa(max(n[0], n[1]))
}

// stateText says what becomes of connections: in a word if it is the same for
// everybody.
func stateText(p *view.ServicePort) string {
	worst := p.Worst()
	s := worst.String()
	for i := range p.Frontends {
		for _, w := range p.Frontends[i].Ways() {
			if w.State != worst {
				s = "partly " + worst.String()
			}
		}
	}
	if p.Torn() {
		s += ", torn"
	}
	return s
}

func affinityText(a *view.Affinity) string {
	if a == nil {
		return ""
	}
	s := a.Timeout.Round(time.Second).String()
	switch {
	case a.Full():
		return s + ", full"
	case a.Clients >= 0:
		return fmt.Sprintf("%s, %d clients", s, a.Clients)
	}
	return s
}

func sourcesText(p *view.ServicePort) string {
	var all []string
	restricted := false
	for i := range p.Frontends {
		if !p.Frontends[i].Restricted {
			continue
		}
		restricted = true
		for _, s := range p.Frontends[i].Sources {
			all = append(all, s.String())
		}
	}
	if restricted && len(all) == 0 {
		return "nobody"
	}
	return strings.Join(all, ",")
}

// printDetails shows Service ports with all that is known of them.
func printDetails(out io.Writer, v *view.View, ports []view.ServicePort) error {
	for i := range ports {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := printPort(out, v, &ports[i]); err != nil {
			return err
		}
	}
	return nil
}

func printPort(out io.Writer, v *view.View, p *view.ServicePort) error {
	w := newTable(out)
	row(w, "Service:", p.Name.String())
	row(w, "Protocol:", p.Protocol.String())
	row(w, "State:", stateText(p))
	row(w, "Connections:", strconv.FormatUint(p.Connections(), 10))
	row(w, "Affinity:", affinityText(p.Affinity))
	if len(v.NodeAddrs) > 0 && nodePortText(p) != "" {
		addrs := make([]string, len(v.NodeAddrs))
		for i, a := range v.NodeAddrs {
			addrs[i] = a.String()
		}
		row(w, "Node addresses:", strings.Join(addrs, ","))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = newTable(out)
	row(w, "FRONTEND", "ADDRESS", "CLIENTS", "STATE", "ENDPOINTS", "MASQUERADED", "PACKETS", "SOURCES")
	for i := range p.Frontends {
		f := &p.Frontends[i]
		clients := [...]string{"all", ""}
		if f.Local != nil {
			clients = [...]string{"pods, node", "others"}
		}
		sources := "all"
		if f.Restricted {
			sources = sourcesText(&view.ServicePort{Frontends: []view.Frontend{*f}})
		}
		for i, way := range f.Ways() {
			row(w, f.Kind.String(), f.String(), clients[i], wayText(way), strconv.Itoa(len(way.Endpoints)), masqueradeText(way),
				strconv.FormatUint(way.Packets, 10), sources)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return printEndpoints(out, v, p)
}

// printEndpoints lists the endpoints of a port by their slots.
func printEndpoints(out io.Writer, v *view.View, p *view.ServicePort) error {
	all := p.Endpoints()
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w := newTable(out)
	row(w, "SLOT", "ENDPOINT", "NODE")
	var slots [2]int
	for _, e := range all {
		slot := &slots[0]
		if e.Addr().Is6() {
			slot = &slots[1]
		}
		where := "other"
		if v.Here(e.Addr()) {
			where = "this"
		}
		row(w, strconv.Itoa(*slot), e.String(), where)
		*slot++
	}
	return w.Flush()
}

func wayText(w *view.Way) string {
	if w.Torn {
		return w.State.String() + ", torn"
	}
	return w.State.String()
}

func masqueradeText(w *view.Way) string {
	if w.State != view.Served {
		return "-"
	}
	return map[view.Masquerade]string{view.Nobody: "nobody", view.Foreign: "all but pods", view.Everybody: "all"}[w.Masquerade]
}
