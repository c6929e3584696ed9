// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"strconv"
)

// Foreign is a transaction of somebody else that touched our tables. It says what was
// touched and not what became of it: that is for the kernel to tell, since others may
// have written again meanwhile.
type Foreign struct {
	// By is whose it was.
	By Process
	// Generation is the number that nf_tables gave it; 0 is not known.
	Generation uint32
	// Lost says that notifications were lost: anything may have been touched, in any
	// family, by anybody.
	Lost bool
	// Touched has what was touched, at most one for each family.
	Touched []Touched
}

// Process is a process that wrote, as the kernel names it: its number in the host's
// first PID namespace and its command, cut at 15 bytes. The zero Process is unknown.
type Process struct {
	PID  uint32
	Name string
}

// String names the process for people.
func (p Process) String() string {
	switch {
	case p == (Process{}):
		return "an unknown process"
	case p.Name == "":
		return "process " + strconv.FormatUint(uint64(p.PID), 10)
	}
	return fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
}

// Touched is what a transaction touched in one family's table.
type Touched struct {
	Family Family
	// Constant names the first thing touched that is no element: the table, a set's
	// declaration, a chain or a rule. Empty is none.
	Constant string
	// Elements were added or deleted; only their sets and keys count.
	Elements []Element
	// Sets had elements added or deleted that are not listed above: ranges, too many,
	// or some whose key is none that we write.
	Sets []Set
	// Clients are Service ports whose map from clients to endpoints was written to.
	Clients []Port
}

// MaxTouched bounds the elements that a Touched lists: where there are more, the set is
// looked at as a whole.
const MaxTouched = 20_000

// Element notes an element, or its set if there are too many.
func (t *Touched) Element(e Element) {
	if len(t.Elements) >= MaxTouched {
		t.Set(e.Set)
		return
	}
	t.Elements = append(t.Elements, Element{Set: e.Set, Key: e.Key})
}

// Set notes a set as a whole.
func (t *Touched) Set(s Set) { t.Sets = note(t.Sets, s) }

// Client notes a Service port's map from clients to endpoints.
func (t *Touched) Client(p Port) { t.Clients = note(t.Clients, p) }

// note appends what is not in a short list yet; mostly it is the same again.
func note[T comparable](all []T, v T) []T {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i] == v {
			return all
		}
	}
	return append(all, v)
}
