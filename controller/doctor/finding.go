// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
)

// Severity is how bad a finding is.
type Severity uint8

// The severities.
const (
	// Note: nothing is wrong, and it is good to know.
	Note Severity = iota
	// Warning: something will not work for somebody, or soon, or it is likely.
	Warning
	// Error: packets of Services are lost or go astray now, or will with the next
	// change.
	Error
)

// String is the severity in a word.
func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// MarshalJSON writes the word.
func (s Severity) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Finding is something to know or to mend.
type Finding struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
	// Likely findings could not be made sure.
	Likely bool `json:"likely,omitempty"`
	// Object is what it is about: a parameter, a table, a chain, a process.
	Object string `json:"object"`
	What   string `json:"what"`
	Why    string `json:"why"`
	Mend   string `json:"mend"`
}

// Kind is a kind of finding, as the documentation lists them.
type Kind struct {
	ID       string
	Severity Severity
	// Sign is what is seen, and Why why it matters.
	Sign, Why string
	// Mend is what helps in general; a finding may know better.
	Mend string
}

// at is a finding of the kind.
func (k *Kind) at(object, what string, args ...any) Finding {
	return Finding{ID: k.ID, Severity: k.Severity, Object: object, What: fmt.Sprintf(what, args...), Why: k.Why, Mend: k.Mend}
}

// mend gives a finding a mend of its own.
func (f Finding) mend(mend string, args ...any) Finding {
	f.Mend = fmt.Sprintf(mend, args...)
	return f
}

// likely marks a finding as such; it is no error then.
func (f Finding) likely() Finding {
	f.Likely = true
	f.Severity = min(f.Severity, Warning)
	return f
}

// Check says what is wrong, the worst first.
func Check(f *Facts) []Finding {
	var all []Finding
	for _, check := range []func(*Facts) []Finding{
		checkKernel, checkForwarding, checkConntrack, checkParams, checkBridges,
		checkTables, checkSizes, checkRunning, checkProxies,
		checkPaths, checkFrontends, checkMarks, checkTrace,
		checkListeners, checkPortRange, checkAddresses,
	} {
		all = append(all, check(f)...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity, a.Severity), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Object, b.Object))
	})
	return all
}

// few lists the first of names, and says how many more there are.
func few(names []string) string {
	const most = 3
	text := ""
	for i, name := range names[:min(len(names), most)] {
		if i > 0 {
			text += ", "
		}
		text += name
	}
	if more := len(names) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
