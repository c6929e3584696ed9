// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/controller/load"
)

// topOptions are the flags of top.
type topOptions struct {
	interval  time.Duration
	batch     bool
	once      bool
	rounds    int
	rows      int
	sort      string
	order     load.Order
	filter    string
	output    string
	conntrack bool
}

func topCommand() *cobra.Command {
	var o topOptions
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show live which Services get how many connections, and which endpoints have them",
		Example: `  kube-nft top
  kube-nft top --sort open --filter kube-system
  kube-nft top --once
  kube-nft top --batch -n 3 -d 1s
  kube-nft top --once -o json | jq -r '.rows[] | select(.state != "served") | .service'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd.OutOrStdout()); err != nil {
				return err
			}
			return top(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), o)
		},
	}
	flags := cmd.Flags()
	flags.DurationVarP(&o.interval, "interval", "d", time.Second, "time from one glance to the next")
	flags.BoolVarP(&o.batch, "batch", "b", false, "print lines, and no screen; also where the output is no terminal")
	flags.IntVarP(&o.rounds, "rounds", "n", 0, "end after so many rounds; 0 is no limit, but 1 where the output is no terminal")
	flags.BoolVar(&o.once, "once", false, "print one round, as --batch --rounds 1")
	flags.IntVar(&o.rows, "rows", 20, "print so many Service ports a round, as lines; 0 is all")
	flags.StringVar(&o.sort, "sort", string(load.ByRate), "rate, name, open, share or state")
	flags.StringVar(&o.filter, "filter", "", "only Service ports with these words in their name, protocol or state")
	flags.StringVarP(&o.output, "output", "o", "text", "text, or json: one object a round; not on a screen")
	flags.BoolVar(&o.conntrack, "conntrack", true, "ask conntrack for endpoints and open connections")
	return cmd
}

// shortest is the shortest interval: rates of less say nothing.
const shortest = 100 * time.Millisecond

// check finds what cannot be meant, and whether there is a screen.
func (o *topOptions) check(out io.Writer) (err error) {
	if o.order, err = load.ParseOrder(o.sort); err != nil {
		return fmt.Errorf("--sort: %w; %w", err, errUsage)
	}
	switch {
	case o.output != "text" && o.output != "json":
		return fmt.Errorf("--output %s: text or json; %w", o.output, errUsage)
	case o.interval < shortest:
		return fmt.Errorf("--interval %v: at least %v; %w", o.interval, shortest, errUsage)
	case o.rounds < 0 || o.rows < 0:
		return fmt.Errorf("--rounds and --rows cannot be negative; %w", errUsage)
	}
	terminal := isTerminal(out)
	if o.once || !terminal && !o.batch && o.rounds == 0 {
		o.rounds = 1
	}
	o.batch = o.batch || o.once || o.rounds > 0 || o.output == "json" || !terminal
	return nil
}

// isTerminal reports whether somebody looks at what is written.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func top(ctx context.Context, out, notes io.Writer, o topOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := newTopSampler(ctx, o.conntrack)
	if err != nil {
		return err
	}
	defer s.close()
	// The first glance is what rates are measured from.
	first, err := s.read(ctx, nil)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return errCannotRead
	case err != nil:
		return err
	case len(first.Rows) == 0:
		return errNoServices
	}
	if o.batch {
		return topLines(ctx, out, notes, s, o)
	}
	return topScreen(ctx, s, o, first)
}
