// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/controller/source"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// BenchmarkConnections is how long a scrape takes that reads the connections of all
// Services beside a real kernel, and how long a change of a verdict takes: alone,
// while one scrape follows the other, and while something else keeps a processor
// busy that has nothing to do with the kernel's tables.
func BenchmarkConnections(b *testing.B) {
	for _, services := range []int{1_000, 10_000, 30_000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) { connectionCosts(b, services) })
	}
}

func connectionCosts(b *testing.B, services int) {
	lab := netlab.NewT(b)
	node := lab.Namespace("node")
	config := testConfig()
	delete(config.Options, nft.IPv6)
	registry := prometheus.NewRegistry()
	config.Metrics, config.ServiceConnections, config.ServiceConnectionsLimit = registry, openKernel(b, node), 1000
	c := New(config, openKernel(b, node))
	load := &source.Synthetic{Services: services, Endpoints: 10}
	for i := range services {
		c.queue.SetService(load.Service(i))
		for _, s := range load.Slices(i) {
			c.queue.SetSlice(s)
		}
	}
	c.queue.Synced()
	pass := func() {
		if err := c.pass(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	pass()
	scrape := func() {
		if _, err := registry.Gather(); err != nil {
			b.Error(err)
		}
	}
	full := load.Slices(services / 2)[0]
	fewer := full.DeepCopy()
	fewer.Endpoints = fewer.Endpoints[:8] // another verdict, not only a slot less
	changes := func(what string) {
		var took []time.Duration
		for range 200 {
			full, fewer = fewer, full
			c.queue.SetSlice(full)
			begin := time.Now()
			pass()
			took = append(took, time.Since(begin))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[100].Microseconds())/1000, what+"-p50-ms")
		b.ReportMetric(float64(took[197].Microseconds())/1000, what+"-p99-ms")
	}
	b.ReportAllocs()
	begin := processorTime(b)
	for b.Loop() {
		scrape()
	}
	b.StopTimer()
	b.ReportMetric(float64((processorTime(b)-begin).Microseconds())/1000/float64(b.N), "cpu-ms/op")
	changes("change")
	beside(scrape, func() { changes("beside-scrapes") })
	beside(func() {
		for begin := time.Now(); time.Since(begin) < 10*time.Millisecond; {
		}
	}, func() { changes("beside-others") })
}

// processorTime is what this process has had, in the kernel too: a busy machine
// makes it no longer.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// beside runs one function again and again while the other runs.
func beside(again, once func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				again()
			}
		}
	}()
	once()
	close(stop)
	<-done
}
