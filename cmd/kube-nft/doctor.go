// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/controller/doctor"
)

// Exit codes of doctor beside those of all commands.
const (
	exitWarnings = 3
	exitErrors   = 4
)

// exitError ends the process with a code, and nothing is left to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// doctorOptions are the flags of doctor.
type doctorOptions struct {
	output   string
	quiet    bool
	ignore   []string
	hostRoot string
}

func doctorCommand() *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what on this host keeps Services from working, and what helps",
		Long: `doctor looks at the kernel, its parameters, our tables, what kube-proxy has left,
and at the tables of others that drop, translate or mark packets of Services. It
changes nothing, and starts no program.

Exit codes: 0 nothing to mend (there may be notes), 1 the check itself failed,
2 usage, 3 warnings, 4 errors.`,
		Example: `  kube-nft doctor
  kube-nft doctor -o wide
  kube-nft doctor --quiet --ignore port-range || echo "this node wants a look"
  kubectl -n kube-system exec ds/kube-nft -- /kube-nft doctor`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "wide, json or yaml; without it findings and mends for people")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print nothing: the exit code says it")
	f.StringSliceVar(&o.ignore, "ignore", nil, "leave out findings of this kind, several with commas between")
	f.StringVar(&o.hostRoot, "host-root", "/", "where the host's root is mounted, or its proc/sys/net alone; read there if it is")
	must(cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("ignore", cobra.FixedCompletions(kindNames(), cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// kindNames lists the kinds of findings, as shells offer them.
func kindNames() (names []string) {
	for _, k := range doctor.Kinds {
		names = append(names, k.ID+"\t"+k.Sign)
	}
	return names
}

// check checks what was typed.
func (o *doctorOptions) check() error {
	var errs []error
	if !slices.Contains([]string{"", "wide", "json", "yaml"}, o.output) {
		errs = append(errs, fmt.Errorf("--output: %q is not wide, json or yaml", o.output))
	}
	for _, id := range o.ignore {
		if !slices.ContainsFunc(doctor.Kinds, func(k *doctor.Kind) bool { return k.ID == id }) {
			errs = append(errs, fmt.Errorf("--ignore: no finding is called %q: docs/doctor.md lists them", id))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w; %w", errors.Join(errs...), errUsage)
	}
	return nil
}

// doctorReport is what doctor says.
type doctorReport struct {
	Findings  []doctor.Finding `json:"findings"`
	Unchecked []doctor.Gap     `json:"unchecked"`
	Errors    int              `json:"errors"`
	Warnings  int              `json:"warnings"`
	Notes     int              `json:"notes"`
}

func (o *doctorOptions) run(ctx context.Context, w io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	facts, err := gatherFacts(ctx, o.hostRoot)
	if err != nil {
		return err
	}
	r := doctorReport{Findings: doctor.Check(facts), Unchecked: facts.Gaps}
	r.Findings = slices.DeleteFunc(r.Findings, func(f doctor.Finding) bool { return slices.Contains(o.ignore, f.ID) })
	r.count()
	if !o.quiet {
		if err := o.print(w, &r); err != nil {
			return err
		}
	}
	switch {
	case r.Errors > 0:
		return exitError(exitErrors)
	case r.Warnings > 0:
		return exitError(exitWarnings)
	}
	return nil
}

func (r *doctorReport) count() {
	for _, f := range r.Findings {
		switch f.Severity {
		case doctor.Error:
			r.Errors++
		case doctor.Warning:
			r.Warnings++
		case doctor.Note:
			r.Notes++
		}
	}
}

func (o *doctorOptions) print(w io.Writer, r *doctorReport) error {
	if r.Findings == nil {
		r.Findings = []doctor.Finding{} // as an empty list, for scripts
	}
	if r.Unchecked == nil {
		r.Unchecked = []doctor.Gap{}
	}
	var text []byte
	var err error
	switch o.output {
	case "json":
		text, err = json.MarshalIndent(r, "", "  ")
		text = append(text, '\n')
	case "yaml":
		text, err = yaml.Marshal(r)
	default:
		text = []byte(r.text(o.output == "wide"))
	}
	if err != nil {
		return fmt.Errorf("print findings: %w", err)
	}
	_, err = w.Write(text)
	return err
}

// text is the report for people: the mend of a finding stands alone on its line, to
// be copied.
func (r *doctorReport) text(wide bool) string {
	var b strings.Builder
	for _, f := range r.Findings {
		severity := strings.ToUpper(f.Severity.String())
		if f.Likely {
			severity += ", likely"
		}
		fmt.Fprintf(&b, "%s  %s\n  %s\n", severity, f.ID, f.What)
		if wide {
			fmt.Fprintf(&b, "  object: %s\n  why:    %s\n", f.Object, f.Why)
		}
		fmt.Fprintf(&b, "  mend:   %s\n\n", f.Mend)
	}
	for _, g := range r.Unchecked {
		fmt.Fprintf(&b, "NOT CHECKED  %s\n  %s\n\n", g.What, g.Why)
	}
	if len(r.Findings) == 0 {
		b.WriteString("nothing to mend\n")
		return b.String()
	}
	fmt.Fprintf(&b, "%s, %s, %s\n", plural(r.Errors, "error"), plural(r.Warnings, "warning"), plural(r.Notes, "note"))
	return b.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
