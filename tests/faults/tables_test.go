// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/compile"
	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/tables"
)

// given is a source of objects that do not change.
type given []runtime.Object

func (g given) Run(ctx context.Context, sink source.Sink) error {
	for _, o := range g {
		switch o := o.(type) {
		case *corev1.Service:
			if o.Spec.ClusterIP != corev1.ClusterIPNone {
				sink.SetService(o)
			}
		case *discoveryv1.EndpointSlice:
			sink.SetSlice(o)
		case *corev1.Node:
			sink.SetNode(o)
		case *networkingv1.ServiceCIDR:
			sink.SetServiceCIDR(o)
		}
	}
	sink.Synced()
	<-ctx.Done()
	return nil
}

// config is what the arguments of site.start mean.
func config() controller.Config {
	options := make(map[nft.Family]nft.Options)
	detect := controller.DetectLocal{Mode: controller.LocalByClusterCIDR}
	for i, cidr := range strings.Split(clusterCIDR, ",") {
		prefix := netip.MustParsePrefix(cidr)
		detect.CIDRs[compile.ModelFamily(nft.Families[i])] = prefix
		options[nft.Families[i]] = nft.Options{
			MasqueradeBit: nft.DefaultMasqueradeBit, LocalPods: nft.LocalPods{Prefix: prefix}, Counters: true,
		}
	}
	return controller.Config{
		NodeName: nodeName,
		Rules:    controller.Rules{Options: options, DetectLocal: detect, NodePorts: controller.NodePorts{Primary: true}},
		NodeIPs:  func() []netip.Addr { return nodeAddr[:] },
		Logger:   slog.New(slog.DiscardHandler),
	}
}

// compiled is what compiling the objects from nothing gives, and inKernel what the
// namespace's nf_tables holds, as lines in which the order of slots does not matter; a
// slot that is empty below another is a line.
func (s *site) compiled(ctx context.Context) ([]string, error) {
	all, err := s.objects.all(ctx)
	if err != nil {
		return nil, err
	}
	tables, err := controller.Compile(ctx, config(), given(all))
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, t := range tables {
		var c nft.Contents
		for e := range t.Elements {
			c.Put(e)
		}
		for _, a := range t.Affinities {
			c.PutAffinity(a)
		}
		lines = append(lines, describe(t.Schema.Family, c)...)
	}
	return lines, nil
}

func (s *site) inKernel(ctx context.Context) ([]string, error) {
	conn, err := kernel.Open(kernel.Options{NetNS: s.node.Fd()})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var lines []string
	for _, f := range nft.Families {
		contents, err := conn.Read(ctx, nft.NewSchema(f, config().Options[f]))
		if err != nil {
			return nil, err
		}
		lines = append(lines, describe(f, contents)...)
	}
	return lines, nil
}

func describe(f nft.Family, c nft.Contents) []string {
	lines := tables.Lines(f, c)
	for port, a := range c.Affinities {
		lines = append(lines, fmt.Sprintf("%s affinity of %s %+v", f, port, a))
	}
	slices.Sort(lines)
	return lines
}

// compare returns an error unless the kernel holds what compiling from nothing gives.
func (s *site) compare(ctx context.Context) error {
	want, err := s.compiled(ctx)
	if err != nil {
		return err
	}
	have, err := s.inKernel(ctx)
	if err != nil {
		return err
	}
	lacks, stale := without(want, have), without(have, want)
	if len(lacks)+len(stale) == 0 {
		return nil
	}
	return fmt.Errorf("of %d lines from nothing the kernel lacks %d %q, and %d are stale %q", len(want),
		len(lacks), lacks[:min(3, len(lacks))], len(stale), stale[:min(3, len(stale))])
}

// without returns the lines of a that are not in b.
func without(a, b []string) (rest []string) {
	in := make(map[string]bool, len(b))
	for _, line := range b {
		in[line] = true
	}
	for _, line := range a {
		if !in[line] {
			rest = append(rest, line)
		}
	}
	return rest
}

// right waits until the kernel holds what compiling from nothing gives, and returns
// how long that took.
func (s *site) right(within time.Duration) time.Duration {
	s.t.Helper()
	began := time.Now()
	err := netlab.Poll(within, func() error {
		if err := s.agent.Gone(); err != nil {
			return err
		}
		return s.compare(s.t.Context())
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return time.Since(began)
}
