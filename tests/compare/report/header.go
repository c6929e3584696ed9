// SPDX-License-Identifier: Apache-2.0

package report

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

// header names what was compared, on what, how and when.
func (r *Results) header() string {
	var b strings.Builder
	for i := 0; i < len(r.files); {
		host := r.files[i].Host
		all := maps.Clone(host.Versions)
		n := i
		for ; n < len(r.files) && sameMachine(r.files[n].Host, host); n++ {
			maps.Copy(all, r.files[n].Host.Versions)
		}
		if i > 0 {
			b.WriteString("\n")
		}
		host.Versions = all
		b.WriteString(describe(host) + "\n\n")
		for _, f := range r.files[i:n] {
			fmt.Fprintf(&b, "- `%s`, commit %s, %s, took %s\n", command(f.Args), f.Commit,
				f.Started.UTC().Format("2006-01-02 15:04 MST"), duration(f.Took.Round(time.Second)))
		}
		i = n
	}
	return b.String()
}

func sameMachine(a, b result.Host) bool {
	a.Versions, b.Versions = nil, nil
	return reflect.DeepEqual(a, b)
}

func describe(h result.Host) string {
	where := "Linux"
	if h.UML {
		where = "User-mode Linux"
	}
	parts := []string{where + " " + h.Kernel}
	if h.CPU != "" {
		parts = append(parts, h.CPU)
	}
	cores := "cores"
	if h.Cores == 1 {
		cores = "core"
	}
	parts = append(parts, fmt.Sprintf("%d %s", h.Cores, cores), fmt.Sprintf("%s GB of memory", digits(float64(h.MemoryMB)/1000)))
	return strings.Join(append(parts, versions(h.Versions)...), ", ") + "."
}

// number finds a version in what a program says of itself.
var number = regexp.MustCompile(`\d+(\.\d+)+[^\s,;)]*`)

// versions are those of programs. Peers are kube-proxies, each version of which is
// named once; kube-nft's is the commit of the run, unless it has one.
func versions(all map[string]string) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text := all[name]
		found := number.FindString(strings.TrimPrefix(text, "(devel)"))
		if found == "" || name == "kube-nft" && strings.HasPrefix(text, "(devel)") {
			continue
		}
		// iptables is a program beside being a mode.
		if p := peerOf(name); name != "iptables" && rival(name) && slices.ContainsFunc(peers, func(o peer) bool { return o == p }) {
			name = "kube-proxy"
		}
		if line := name + " " + found; !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// command is how it was called, without where the program was.
func command(args []string) string {
	if len(args) > 0 && filepath.Base(args[0]) == "compare" {
		args = args[1:]
	}
	return strings.TrimSpace("compare " + strings.Join(args, " "))
}

// skips lists what did not run, and why; what several sections say alike, once.
func (r *Results) skips() string {
	sections := make(map[result.Skip][]string)
	var all []result.Skip
	for _, s := range slices.Concat(r.here.skipped, r.uml.skipped) {
		section := s.Section
		s.Section = ""
		if _, said := sections[s]; !said {
			all = append(all, s)
		}
		if !slices.Contains(sections[s], section) {
			sections[s] = append(sections[s], section)
		}
	}
	if len(all) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("What did not run:\n")
	for _, s := range all {
		of := slices.Concat([]string{s.Proxy, place{shape: s.Shape}.shapeTitle(), s.Case}, sections[s])
		of = slices.DeleteFunc(of, func(word string) bool { return word == "" })
		b.WriteString("\n- " + strings.Join(of, ", "))
		if s.What != "" {
			b.WriteString(" (" + s.What + ")")
		}
		b.WriteString(": " + strings.TrimSuffix(s.Why, ".") + ".")
	}
	return b.String()
}
