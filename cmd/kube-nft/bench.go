// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// benchOptions are the flags of bench.
type benchOptions struct {
	sizes   []string
	changes int
	rounds  int
	dual    bool
	profiles
}

func benchCommand() *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast this kernel is programmed, in a namespace of its own",
		Long: `bench makes up Services, programs them in a network namespace of its own, and
prints what that took beside the floor: the time that the kernel takes for the
same transactions when they only need to be sent. Times are medians.`,
		Example: `  kube-nft bench --sizes 1000x10,10000x10 --changes 500
  kube-nft bench --sizes 30000x10 --cpuprofile cpu.pprof && go tool pprof -top cpu.pprof`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return bench(cmd.Context(), cmd.OutOrStdout(), o) },
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.sizes, "sizes", []string{"1000x10", "10000x10", "30000x10", "44125x1"}, "Services x endpoints of each")
	f.IntVar(&o.changes, "changes", 200, "changes of one endpoint to measure for each size")
	f.IntVar(&o.rounds, "rounds", 3, "cold starts and restarts to measure for each size")
	f.BoolVar(&o.dual, "dual-stack", false, "IPv4 and IPv6")
	o.profiles.addFlags(f)
	return cmd
}

// size is one load.
type size struct{ services, endpoints int }

func (s size) String() string { return fmt.Sprintf("%dx%d", s.services, s.endpoints) }

func parseSizes(words []string) ([]size, error) {
	var sizes []size
	var errs []error
	for _, w := range words {
		var s size
		if n, err := fmt.Sscanf(w, "%dx%d", &s.services, &s.endpoints); n != 2 || err != nil || s.services < 3 || s.endpoints < 1 || s.String() != w {
			errs = append(errs, fmt.Errorf("--sizes: %q is not like 1000x10, with at least 3 Services of at least 1 endpoint", w))
			continue
		}
		sizes = append(sizes, s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w\n%w", err, errUsage)
	}
	return sizes, nil
}

func bench(ctx context.Context, w io.Writer, o benchOptions) error {
	sizes, err := parseSizes(o.sizes)
	if err != nil {
		return err
	}
	if o.changes < 1 || o.rounds < 1 {
		return fmt.Errorf("--changes and --rounds are at least 1; %w", errUsage)
	}
	if !netlab.Isolated() {
		code, err := netlab.Isolate(os.Args)
		if err != nil {
			return fmt.Errorf("bench needs a network namespace of its own: %w", err)
		}
		os.Exit(code)
	}
	return o.profiles.during(func() error { return benchSizes(ctx, w, sizes, o) })
}

func benchSizes(ctx context.Context, w io.Writer, sizes []size, o benchOptions) error {
	fmt.Fprintf(w, "Linux %s, %d CPUs, %s; all times are medians of this run\n", kernelRelease(), runtime.NumCPU(), runtime.Version())
	t := newReport(w)
	for _, s := range sizes {
		fmt.Fprintf(os.Stderr, "measuring %s ...\n", s)
		r, err := measure(ctx, s, o)
		if err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		t.add(r)
	}
	return t.print()
}

func kernelRelease() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return unix.ByteSliceToString(u.Release[:])
}

// result is what was measured for one size.
type result struct {
	size         size
	cold         []time.Duration // synced state → all committed
	coldFloor    []time.Duration // the same transactions, only sent
	batches      int
	longest      time.Duration   // transaction of the cold start
	change       []time.Duration // event in → acknowledged, one endpoint less or more
	changeFloor  []time.Duration
	verdict      []time.Duration // as many less or more as it takes for another verdict
	verdictFloor []time.Duration
	userSpace    []time.Duration // the same without a kernel
	swap         []time.Duration // the count stays
	restart      []time.Duration
	writes       int // at restart
	heap         uint64
}

// report prints results as a table.
type report struct {
	w    io.Writer
	rows [][]string
}

func newReport(w io.Writer) *report {
	return &report{w: w, rows: [][]string{{
		"services", "cold start", "floor", "ratio", "longest tx",
		"one endpoint ±", "p99", "floor", "user space", "new verdict", "p99", "floor", "endpoint swap", "restart", "writes", "heap",
	}}}
}

func (t *report) add(r result) {
	t.rows = append(t.rows, []string{
		r.size.String(),
		round(median(r.cold)), round(median(r.coldFloor)), ratio(r.cold, r.coldFloor), round(r.longest),
		round(median(r.change)), round(quantile(r.change, 0.99)), round(median(r.changeFloor)),
		round(median(r.userSpace)),
		round(median(r.verdict)), round(quantile(r.verdict, 0.99)), round(median(r.verdictFloor)), round(median(r.swap)),
		round(median(r.restart)), fmt.Sprint(r.writes), fmt.Sprintf("%d MB", r.heap>>20),
	})
}

// print writes one column for each size, because there are more figures than sizes.
func (t *report) print() error {
	tw := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i := range t.rows[0] {
		var line strings.Builder
		for _, row := range t.rows {
			line.WriteString(row[i] + "\t")
		}
		fmt.Fprintln(tw, line.String())
	}
	return tw.Flush()
}

func median(d []time.Duration) time.Duration { return quantile(d, 0.5) }

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

func ratio(a, b []time.Duration) string {
	if len(a) == 0 || len(b) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(median(a))/float64(median(b)))
}

// round keeps three digits; nothing measured is a dash.
func round(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	for unit := time.Duration(1); ; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
}

// benchPods is where Synthetic's pods are.
var benchPods = netip.MustParsePrefix("10.128.0.0/9")
