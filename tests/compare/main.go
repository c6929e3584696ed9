// SPDX-License-Identifier: Apache-2.0

// Command compare measures kube-nft beside the modes of kube-proxy: on the same
// machine, with the same objects, in turn.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/tests/compare/packet"
	"github.com/kube-nft/kube-nft/tests/compare/program"
	"github.com/kube-nft/kube-nft/tests/compare/report"
	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/compare/uml"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := rootCommand().ExecuteContext(ctx)
	if exit, ok := errors.AsType[setup.ExitError](err); ok {
		return int(exit)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		return 1
	}
	return 0
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "compare",
		Short: "Measure kube-nft beside kube-proxy",
		Long: `compare measures kube-nft beside the modes of kube-proxy. Every section writes a file
of results, from which "compare report" makes a page. All of it happens in network
namespaces of its own.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	sections := []*cobra.Command{
		program.Command(),
		packet.Command(),
		uml.Command(),
		report.Command(),
	}
	root.AddCommand(sections...)
	root.AddCommand(allCommand(sections), uml.InitCommand())
	return root
}

// allCommand runs the sections one after the other, each as a process of its own. What
// one of them cannot do is no reason to leave out the next.
func allCommand(sections []*cobra.Command) *cobra.Command {
	var full bool
	var out, kubeNFT string
	cmd := &cobra.Command{
		Use:   "all",
		Short: "Run all of these, one after the other",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var errs []error
			for _, s := range sections {
				args := []string{s.Name()}
				for name, value := range map[string]string{"full": fmt.Sprint(full), "out": out, "results": out, "kube-nft": kubeNFT} {
					if s.Flags().Lookup(name) != nil && value != "" {
						args = append(args, "--"+name+"="+value)
					}
				}
				if err := runAgain(cmd.Context(), args); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
				}
				if cmd.Context().Err() != nil {
					break
				}
			}
			return errors.Join(errs...)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&full, "full", false, "measure in large clusters, and for long")
	f.StringVar(&out, "out", "bin/compare-results", "directory of the results")
	f.StringVar(&kubeNFT, "kube-nft", "", "compare this program, and not one built of the checkout")
	return cmd
}

// runAgain runs this program with other arguments. It is asked to end when this one is.
func runAgain(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}
