// SPDX-License-Identifier: Apache-2.0

// Command kube-nft is a Kubernetes Service proxy in nftables alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:])) }

// errUsage marks errors in what was typed, and errConfig in a configuration file.
var (
	errUsage  = errors.New("see kube-nft --help, and that of the command")
	errConfig = errors.New("docs/configuration.md lists all fields")
)

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage), errors.Is(err, errConfig):
		fmt.Fprintln(os.Stderr, "kube-nft:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "kube-nft:", err)
	return exitFailed
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kube-nft",
		Short: "Kubernetes Services as one nftables table",
		Long: `kube-nft does kube-proxy's job with nftables alone: it keeps one table per IP
family in which a Service port is a map element, and changes it by netlink, in
proportion to what changed.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w; %w", err, errUsage) })
	root.AddCommand(
		runCommand(),
		renderCommand(),
		listCommand(),
		explainCommand(),
		traceCommand(),
		doctorCommand(),
		topCommand(),
		cleanupCommand(),
		demoCommand(),
		benchCommand(),
		versionCommand(),
		migrateCommand(),
	)
	completeFlags(root)
	return root
}

// knownCommand refuses a word that is no command, and says which may have been meant.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || args[0] == "" {
		return noArgs(cmd, args)
	}
	meant := ""
	if cmd.SuggestionsMinimumDistance = 2; len(cmd.SuggestionsFor(args[0])) > 0 {
		meant = fmt.Sprintf(", did you mean %s?", strings.Join(cmd.SuggestionsFor(args[0]), " or "))
	}
	return fmt.Errorf("unknown command %q%s; %w", args[0], meant, errUsage)
}

// noArgs refuses positional arguments, which are always a mistake here.
func noArgs(_ *cobra.Command, args []string) error {
	for _, arg := range args {
		if arg != "" { // as in kube-proxy: templates leave empty ones behind
			return fmt.Errorf("unknown argument %q; %w", arg, errUsage)
		}
	}
	return nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "kube-nft", version()) },
	}
}

// version is the module's version, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && v == "(devel)" {
			v = s.Value
		}
	}
	return v + " " + info.GoVersion
}
