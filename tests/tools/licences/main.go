// SPDX-License-Identifier: Apache-2.0

// Command licences reads a CycloneDX bill of materials and writes a line for each module:
// its licences, its name and its version. It fails if one has no licence, or one that a
// binary under the Apache License must not be put together with.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// allowed are the licences of what may be linked in. 0BSD is what detection makes of ISC.
var allowed = []string{"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// unpublished are those whose licence is in no module: Go's own is BSD-3-Clause.
var unpublished = map[string]string{"std": "BSD-3-Clause"}

type bill struct {
	Components []struct {
		Name, Version string
		Licenses      []struct {
			License struct{ ID string }
		}
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: licences FILE")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var b bill
	if err := json.Unmarshal(text, &b); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	var bad []string
	for _, c := range b.Components {
		var ids []string
		for _, l := range c.Licenses {
			ids = append(ids, l.License.ID)
		}
		if len(ids) == 0 && unpublished[c.Name] != "" {
			ids = []string{unpublished[c.Name]}
		}
		if len(ids) == 0 || slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(allowed, id) }) {
			bad = append(bad, c.Name)
		}
		fmt.Printf("%-28s %s %s\n", strings.Join(ids, ", "), c.Name, c.Version)
	}
	if len(bad) > 0 || len(b.Components) == 0 {
		return fmt.Errorf("of %d modules no licence that will do: %v", len(b.Components), bad)
	}
	return nil
}
