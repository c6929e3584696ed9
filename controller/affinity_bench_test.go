// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// BenchmarkAffinity is what session affinity costs beside a real kernel: all
// Services have it, or none. Each figure is a metric of its own, since a start is
// not to be repeated a thousand times.
func BenchmarkAffinity(b *testing.B) {
	for _, services := range []int{1_000, 5_000} {
		for _, affinity := range []float64{0, 1} {
			b.Run(fmt.Sprintf("%dx10/affinity=%v", services, affinity == 1), func(b *testing.B) {
				for b.Loop() {
					affinityCosts(b, &source.Synthetic{Services: services, Endpoints: 10, Affinity: affinity})
				}
			})
		}
	}
}

func affinityCosts(b *testing.B, load *source.Synthetic) {
	lab := netlab.NewT(b)
	conn := openKernel(b, lab.Namespace("node"))
	config := testConfig()
	delete(config.Options, nft.IPv6)
	c := New(config, conn)
	pass := func(c *Controller, what string) {
		begin := time.Now()
		if err := c.pass(context.Background()); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begin).Microseconds())/1000, what)
	}
	put := func(i int) {
		c.queue.SetService(load.Service(i))
		for _, s := range load.Slices(i) {
			c.queue.SetSlice(s)
		}
	}
	for i := range load.Services - 1 {
		put(i)
	}
	c.queue.Synced()
	pass(c, "cold-ms")
	put(load.Services - 1)
	pass(c, "one-more-Service-ms")
	changed := load.Slices(load.Services / 2)[0]
	changed.Endpoints = changed.Endpoints[:9]
	c.queue.SetSlice(changed)
	pass(c, "endpoint-leaves-ms")
	c.queue.SetSlice(load.Slices(load.Services / 2)[0])
	pass(c, "endpoint-comes-ms")

	again := New(config, conn)
	again.state = c.state
	again.state.MarkAll()
	again.queue.Synced()
	pass(again, "restart-ms")
}

// BenchmarkAffinityLeaves is how long it takes until an endpoint has left a Service
// port that remembers as many clients as it can.
func BenchmarkAffinityLeaves(b *testing.B) {
	lab := netlab.NewT(b)
	node := lab.Namespace("node")
	conn := openKernel(b, node)
	config := testConfig()
	delete(config.Options, nft.IPv6)
	load := &source.Synthetic{Services: 4, Endpoints: 10, Affinity: 1}
	c := New(config, conn)
	pass := func() {
		if err := c.pass(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	const which = 3
	c.queue.SetService(load.Service(which))
	slice := load.Slices(which)[0]
	c.queue.SetSlice(slice)
	c.queue.Synced()
	pass()
	affinities, keep := c.tables[0].desired.Affinities()
	name := affinities[0].Maps()[0]
	all := keep[0].Endpoints
	fewer := slice.DeepCopy()
	fewer.Endpoints = fewer.Endpoints[:9]
	for b.Loop() {
		b.StopTimer()
		c.queue.SetSlice(slice)
		pass()
		fillAffinity(b, node, name, all)
		b.StartTimer()
		c.queue.SetSlice(fewer)
		pass()
	}
}

// fillAffinity makes a map from clients to endpoints full.
func fillAffinity(b *testing.B, node *netlab.Namespace, name string, endpoints []netip.AddrPort) {
	b.Helper()
	var script strings.Builder
	fmt.Fprintf(&script, "flush map ip kube-nft %s\n", name)
	const together = 8192
	for i := range nft.AffinitySize {
		if i%together == 0 {
			fmt.Fprintf(&script, "add element ip kube-nft %s {\n", name)
		}
		e := endpoints[i%len(endpoints)]
		fmt.Fprintf(&script, "10.%d.%d.%d timeout 3h : %s . %d,\n", 1+i>>16, i>>8&255, i&255, e.Addr(), e.Port())
		if i%together == together-1 {
			script.WriteString("}\n")
		}
	}
	if err := node.NFT(script.String()); err != nil {
		b.Fatal(err)
	}
}
