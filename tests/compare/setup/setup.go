// SPDX-License-Identifier: Apache-2.0

// Package setup is what all sections of the comparison begin with: their flags, the
// programs that they compare, and namespaces of their own to work in.
package setup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Options are the flags that sections have in common. A section sets what it wants
// otherwise before AddFlags, or after the flags are read, by Full.
type Options struct {
	Out     string // directory of results
	Peers   []string
	Shapes  []string
	Rounds  int
	Limit   time.Duration // longest wait for one proxy
	Full    bool
	KubeNFT string
}

// AddFlags adds the flags, whose defaults are in the help only: see Complete.
func (o *Options) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Out, "out", "bin/compare-results", "directory of the results")
	f.StringSliceVar(&o.Peers, "peers", nil, "proxies to compare, of "+strings.Join(peer.Names(peer.All), ", "))
	f.StringSliceVar(&o.Shapes, "shapes", nil, "clusters to compare them in: Services x endpoints of each, such as 1000x10")
	f.IntVar(&o.Rounds, "rounds", 0, "how often to measure each proxy, in turn with the others")
	f.DurationVar(&o.Limit, "limit", 0, "the longest wait for one proxy")
	f.BoolVar(&o.Full, "full", false, "measure in large clusters, and for long")
	f.StringVar(&o.KubeNFT, "kube-nft", "", "compare this program, and not one built of the checkout")
}

// Complete fills in what the flags left empty.
func (o *Options) Complete(d Options) {
	if len(o.Peers) == 0 {
		o.Peers = d.Peers
	}
	if len(o.Shapes) == 0 {
		o.Shapes = d.Shapes
	}
	if o.Rounds == 0 {
		o.Rounds = d.Rounds
	}
	if o.Limit == 0 {
		o.Limit = d.Limit
	}
}

// ParseShapes returns the shapes that were named.
func (o *Options) ParseShapes() ([]shape.Shape, error) {
	return shape.ParseAll(strings.Join(o.Shapes, ","))
}

// UsablePeers returns the peers that were named and can run here, and the others as
// skipped.
func (o *Options) UsablePeers(section string) (usable []peer.Peer, skipped []result.Skip, err error) {
	found, err := peer.Find(o.Peers...)
	for _, p := range found {
		if why := p.Missing(); why != "" {
			skipped = append(skipped, result.Skip{Section: section, Proxy: p.Name, What: "everything", Why: why})
			continue
		}
		usable = append(usable, p)
	}
	return usable, skipped, err
}

// NewFile returns a file for the results of a section, without rows.
func (o *Options) NewFile(ctx context.Context, log *slog.Logger, peers []peer.Peer) *result.File {
	f := &result.File{Host: result.NewHost(), Started: time.Now().UTC().Truncate(time.Second), Commit: result.Commit(), Args: slices.Clone(os.Args[1:])}
	for _, p := range peers {
		program, version := p.Version(ctx, log)
		if version == "(devel)" { // as built from a copy of the sources
			version = f.Commit
		}
		f.Host.Versions[program] = version
	}
	return f
}

// Path is where the results of a section go.
func (o *Options) Path(section string) string { return filepath.Join(o.Out, section+".json") }

// Isolated runs a section in namespaces of its own. Before it enters them, where the
// network is, it makes sure that the programs of the peers and of an API server exist.
func (o *Options) Isolated(ctx context.Context, log *slog.Logger, section func() error) error {
	if netlab.Isolated() {
		return section()
	}
	remove, err := o.install(ctx, log)
	if err != nil {
		return err
	}
	defer remove()
	code, err := netlab.Isolate(os.Args)
	if err != nil {
		return err
	}
	if code != 0 {
		return ExitError(code)
	}
	return nil
}

// ExitError is the exit status of a program that has said why.
type ExitError int

func (e ExitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func (o *Options) install(ctx context.Context, log *slog.Logger) (remove func(), err error) {
	if o.KubeNFT != "" {
		if err := peer.Use(o.KubeNFT); err != nil {
			return nil, err
		}
	}
	if remove, err = peer.BuildKubeNFT(ctx); err != nil {
		return nil, err
	}
	if _, err = cluster.Build(ctx, log, cluster.Etcd, cluster.APIServer); err == nil {
		err = o.installPeers(ctx, log)
	}
	if err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

func (o *Options) installPeers(ctx context.Context, log *slog.Logger) error {
	usable, _, err := o.UsablePeers("")
	for _, p := range usable {
		_, failed := p.Program(ctx, log)
		err = errors.Join(err, failed)
	}
	return err
}
