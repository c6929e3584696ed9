// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/nft/kubeproxy"
)

// migrateOptions are the flags of migrate and its commands.
type migrateOptions struct {
	file   string
	output string
	dryRun bool
	force  bool
	drain  time.Duration
	wait   time.Duration
}

func migrateCommand() *cobra.Command {
	var o migrateOptions
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Say what changes when kube-nft takes kube-proxy's place here; take it, or give it back",
		Long: `migrate looks at this node: how kube-proxy is configured, what it has programmed, and
whether kube-nft has programmed the same. It says what will be different, and what to do
about it, and changes nothing.

take-over removes what kube-proxy has left once kube-nft carries all of it; back removes
kube-nft's tables once kube-proxy carries all of them. No connection is lost in either.`,
		Example: `  kube-nft migrate
  kube-nft migrate --config /var/lib/kube-proxy/config.conf
  kube-nft migrate take-over --dry-run
  kube-nft migrate take-over
  kube-nft migrate back`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.report(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.file, "config", "", "kube-proxy's configuration file, instead of that of the kube-proxy that runs here")
	f.StringVarP(&o.output, "output", "o", "text", "text, json or yaml")
	cmd.AddCommand(o.takeOverCommand(), o.backCommand())
	return cmd
}

func (o *migrateOptions) takeOverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "take-over",
		Short: "Remove what kube-proxy has left on this node, once kube-nft carries all of it",
		Long: `take-over wants kube-nft to run here and to have programmed everything, kube-proxy to
have stopped, and each frontend that kube-proxy's rules carry to be in kube-nft's tables.
Then it removes what is kube-proxy's and nothing else: its tables, or its chains and the
jumps to them among the rules of others, ipsets, virtual services of IPVS, kube-ipvs0.
Connections that go through IPVS are waited for.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.takeOver(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "check everything, say what would be removed, and remove nothing")
	f.BoolVar(&o.force, "force", false, "remove it although a check has failed")
	f.DurationVar(&o.drain, "drain", 5*time.Minute, "how long to wait for connections that go through IPVS; 0 ends them")
	return cmd
}

func (o *migrateOptions) backCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "back",
		Short: "Remove kube-nft's tables, once kube-proxy carries everything again",
		Long: `back wants kube-nft to have stopped, and waits until kube-proxy runs here and has
programmed each frontend that kube-nft's tables carry. Then it removes the tables, at
once: in iptables mode kube-nft's chains are asked first until then, and know no change
of endpoints.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.back(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "check everything once, say what would be removed, and remove nothing")
	f.BoolVar(&o.force, "force", false, "remove it although a check has failed")
	f.DurationVar(&o.wait, "wait", 2*time.Minute, "how long to wait for kube-proxy")
	return cmd
}

// check is one thing that must be so before anything is removed.
type check struct {
	what string
	err  error // what is not as it must be, and the mend
}

// told prints the checks, and returns an error unless all are good or need not be.
func (o *migrateOptions) told(w io.Writer, checks []check) error {
	failed := 0
	for _, c := range checks {
		if c.err == nil {
			fmt.Fprintf(w, "ok    %s\n", c.what)
			continue
		}
		failed++
		fmt.Fprintf(w, "FAIL  %s: %v\n", c.what, c.err)
	}
	switch {
	case failed == 0:
		return nil
	case o.force:
		fmt.Fprintln(w, "going on, as --force asks")
		return nil
	}
	return errors.New("nothing was changed: see FAIL above for the mend; --force goes on in spite of it")
}

// fewFrontends names the first of many.
func fewFrontends(all []kubeproxy.Frontend) string {
	const most = 10
	text := ""
	for i, f := range all {
		if i == most {
			return fmt.Sprintf("%s and %d more", text, len(all)-most)
		}
		if i > 0 {
			text += ", "
		}
		text += f.String()
	}
	return text
}

// findLeftovers finds what kube-proxy has left, and what kube-nft's tables carry.
func findLeftovers(ctx context.Context) (found kubeproxy.Found, served []kubeproxy.Frontend, err error) {
	if found, err = kubeproxy.Find(ctx); err != nil {
		return found, nil, explainPermission(err)
	}
	served, err = kubeproxy.Served(ctx)
	return found, served, explainPermission(err)
}
