// SPDX-License-Identifier: Apache-2.0

package uml

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/setup"
)

// initCommand is the word by which this program knows that it is a machine's init.
const initCommand = "uml-init"

// options are the flags of the command.
type options struct {
	setup.Options
	build    bool
	services []int
}

// Command measures and writes ipvs.json.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "ipvs",
		Short: "First packets by IPVS and others inside user-mode Linux, which has IPVS",
		Long: `ipvs runs other sections of this program inside user-mode Linux, since few machines
have a kernel with IPVS. That kernel is built from Debian's source, once, which takes
about ten minutes; without --build or --full one that was built is used, or none.

A system call or a page fault costs many times what it does elsewhere. Compare a figure
with that of "bare" from the same file, one DNAT rule, and with nothing else.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), slog.Default())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Out, "out", "bin/compare-results", "directory of the results")
	f.IntSliceVar(&o.services, "services", nil, "how many Services there are, in turn (default 200, with --full 1000 and 5000)")
	f.IntVar(&o.Rounds, "rounds", 0, "how often to measure each proxy, in turn with the others")
	f.DurationVar(&o.Limit, "limit", 0, "the longest that one boot and what is measured in it may take (default 12m, with --full 30m)")
	f.BoolVar(&o.Full, "full", false, "measure in larger clusters, and build the kernel if there is none")
	f.BoolVar(&o.build, "build", false, "build the kernel if there is none")
	f.StringVar(&o.KubeNFT, "kube-nft", "", "compare this program, and not one built of the checkout")
	return cmd
}

// InitCommand is what runs as process 1 inside. Nobody else is to.
func InitCommand() *cobra.Command {
	return &cobra.Command{
		Use: initCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return Init() },
	}
}

func (o *options) run(ctx context.Context, log *slog.Logger) error {
	services, limit := []int{200}, 12*time.Minute
	if o.Full {
		services, limit = []int{1000, 5000}, 30*time.Minute
	}
	if len(o.services) == 0 {
		o.services = services
	}
	o.Limit = cmp.Or(o.Limit, limit)
	f := o.NewFile(ctx, log, nil)
	kernel, err := o.kernel(ctx, log)
	if err == nil {
		err = o.measure(ctx, log, kernel, f)
	}
	if err != nil && ctx.Err() == nil {
		log.Warn("IPVS is not compared", "err", err)
		f.Skip(result.Skip{Section: "packet", Proxy: "ipvs", What: "everything", Why: err.Error()})
	}
	if ctx.Err() != nil && len(f.Rows) == 0 {
		return context.Cause(ctx) // and an older file stays
	}
	f.Took = time.Since(f.Started).Round(time.Second)
	return errors.Join(context.Cause(ctx), f.Save(o.Path("ipvs")))
}

// kernel returns the path of the kernel if all that it is to run is there.
func (o *options) kernel(ctx context.Context, log *slog.Logger) (string, error) {
	if packages := Missing(); len(packages) > 0 {
		return "", fmt.Errorf("not installed: %s (Debian's packages)", strings.Join(packages, " "))
	}
	if o.build || o.Full {
		return Build(ctx, log)
	}
	path, err := Find()
	if errors.Is(err, ErrNoKernel) {
		err = fmt.Errorf("%w; \"compare ipvs --build\" builds it, in about ten minutes", err)
	}
	return path, err
}

// measure sees to the programs, which cannot be built inside, and measures.
func (o *options) measure(ctx context.Context, log *slog.Logger, kernel string, f *result.File) error {
	if o.KubeNFT != "" {
		if err := peer.Use(o.KubeNFT); err != nil {
			return err
		}
	}
	remove, err := peer.BuildKubeNFT(ctx)
	if err != nil {
		return err
	}
	defer remove()
	if _, err := cluster.Build(ctx, log, cluster.Etcd, cluster.APIServer, cluster.Proxy); err != nil {
		return err
	}
	return Config{
		Kernel: kernel, Word: initCommand, Limit: o.Limit, Output: os.Stderr, Log: log, Sections: o.sections(),
	}.Measure(ctx, f)
}

// sections are what is measured inside. The clusters are small: it is about packets,
// and objects are slow to write there.
func (o *options) sections() []Section {
	var shapes []string
	for _, n := range o.services {
		shapes = append(shapes, fmt.Sprintf("%dx2", n))
	}
	rounds := o.Rounds
	if rounds == 0 {
		rounds = 7
	}
	limit := "--limit=" + (o.Limit / 3).String() // IPVS takes minutes to start with thousands of Services
	sections := []Section{{
		Name: "packet", File: "packets.json",
		Args: []string{"packets", "--peers=ipvs,kube-nft,nftables", "--shapes=" + strings.Join(shapes, ","),
			limit, "--batch=3000", "--flow-rounds=0", fmt.Sprintf("--rounds=%d", rounds)},
	}}
	if o.Full {
		sections = append(sections, Section{
			Name: "start", File: "program.json",
			Args: []string{"program", "--peers=ipvs,kube-nft,nftables", "--shapes=" + shapes[0], "--start-only", limit, "--rounds=1"},
		})
	}
	return sections
}
