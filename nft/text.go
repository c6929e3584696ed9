// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Format writes a whole table as an nft script: what `nft -f` loads to the same
// table as we make over netlink. Elements must come set by set.
func Format(w io.Writer, t Table) error {
	s := t.Schema
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "table %s %s {\n\tcomment %q\n", s.Family, TableName, Comment(Version))
	bySet := make(map[Set][]Element)
	for e := range t.Elements {
		bySet[e.Set] = append(bySet[e.Set], e)
	}
	for _, set := range s.Sets() {
		formatSet(b, s, set, bySet[set])
	}
	for _, a := range t.Affinities {
		for _, name := range a.Maps() {
			fmt.Fprintf(b, "\n\tmap %s {\n\t\t%s\n\t}\n", name, strings.Join(affinityMapText(s.Family), "\n\t\t"))
		}
	}
	for _, c := range s.Chains {
		formatChain(b, c)
	}
	for _, c := range slices.SortedFunc(slices.Values(t.Chains), Chain.Compare) {
		formatChain(b, s.Dynamic(c))
	}
	for _, a := range t.Affinities {
		for _, c := range s.AffinityChains(a) {
			formatChain(b, c)
		}
	}
	fmt.Fprintln(b, "}")
	return b.Flush()
}

func formatSet(b *bufio.Writer, s *Schema, set Set, elements []Element) {
	kind := "set"
	if set.Map() {
		kind = "map"
	}
	fmt.Fprintf(b, "\n\t%s %s {\n\t\ttypeof %s\n\t\tsize %d\n", kind, set, set.typeof(s.Family), s.Sizes[set])
	if set.Ranged() {
		fmt.Fprint(b, "\t\tflags interval\n")
	}
	if s.Counted(set) {
		fmt.Fprint(b, "\t\tcounter\n")
	}
	for i, e := range elements {
		if i == 0 {
			fmt.Fprint(b, "\t\telements = { ")
		} else {
			fmt.Fprint(b, ",\n\t\t\t     ")
		}
		fmt.Fprint(b, e.text())
	}
	if len(elements) > 0 {
		fmt.Fprint(b, " }\n")
	}
	fmt.Fprint(b, "\t}\n")
}

// affinityMapText describes a map from clients to endpoints, line by line.
func affinityMapText(f Family) []string {
	return []string{
		"typeof " + fieldsText(f, affinityLayout.key) + " : " + fieldsText(f, affinityLayout.data),
		"size " + itoa(AffinitySize),
		"flags dynamic,timeout",
	}
}

func formatChain(b *bufio.Writer, c RuleChain) {
	fmt.Fprintf(b, "\n\tchain %s {\n", c.Name)
	if c.Base != nil {
		fmt.Fprintf(b, "\t\ttype %s hook %s priority %s; policy accept;\n", c.Base.Type, c.Base.Hook, c.Base.text)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", r.Text)
	}
	fmt.Fprint(b, "\t}\n")
}

// Format writes a delta as an nft script; with nft 1.0.6 it documents more than
// it loads, because that version cannot type a rule by a map committed before.
func (d *Delta) Format(w io.Writer, s *Schema) error {
	b := bufio.NewWriter(w)
	do := func(verb, what, words string) {
		fmt.Fprintf(b, "%s %s %s %s %s\n", verb, what, s.Family, TableName, words)
	}
	addChain := func(c RuleChain) {
		do("add", "chain", c.Name)
		for _, r := range c.Rules {
			do("add", "rule", c.Name+" "+r.Text)
		}
	}
	for _, c := range d.Chains {
		addChain(s.Dynamic(c))
	}
	for _, a := range d.Affinities {
		for _, name := range a.Is.Maps() {
			do("add", "map", name+" { "+strings.Join(affinityMapText(s.Family), "; ")+"; }")
		}
		for _, c := range s.AffinityChains(a.Is) {
			addChain(c)
		}
	}
	for _, e := range d.Delete {
		do("delete", "element", e.String())
	}
	for _, e := range d.Add {
		do("add", "element", e.String())
	}
	for _, c := range d.Gone {
		do("delete", "chain", c.String())
	}
	for _, a := range d.Affinities {
		if a.Is != (Affinity{}) {
			continue
		}
		for _, c := range s.AffinityChains(a.Was) {
			do("delete", "chain", c.Name)
		}
		for _, name := range a.Was.Maps() {
			do("delete", "map", name)
		}
	}
	return b.Flush()
}
