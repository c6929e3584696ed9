// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"bufio"
	"fmt"
	"io"
	"iter"
	"slices"
)

// Format writes a whole table as an nft script: what `nft -f` loads to the same
// table as we make over netlink. elements are written in the given order, and
// must come set by set; chains are those in use beside the constant ones.
func Format(w io.Writer, s *Schema, chains []Chain, elements iter.Seq[Element]) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "table %s %s {\n\tcomment %q\n", s.Family, TableName, Comment(Version))
	bySet := make(map[Set][]Element)
	for e := range elements {
		bySet[e.Set] = append(bySet[e.Set], e)
	}
	for _, set := range Sets {
		formatSet(b, s, set, bySet[set])
	}
	for _, c := range s.Chains {
		formatChain(b, c)
	}
	for _, c := range slices.SortedFunc(slices.Values(chains), Chain.Compare) {
		formatChain(b, s.Dynamic(c))
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
	for _, c := range d.Chains {
		fmt.Fprintf(b, "add chain %s %s %s\n", s.Family, TableName, c)
		for _, r := range s.Dynamic(c).Rules {
			fmt.Fprintf(b, "add rule %s %s %s %s\n", s.Family, TableName, c, r.Text)
		}
	}
	for _, e := range d.Delete {
		fmt.Fprintf(b, "delete element %s %s %s { %s }\n", s.Family, TableName, e.Set, Element{Set: e.Set, Key: e.Key, Value: e.Value}.text())
	}
	for _, e := range d.Add {
		fmt.Fprintf(b, "add element %s %s %s { %s }\n", s.Family, TableName, e.Set, e.text())
	}
	return b.Flush()
}
