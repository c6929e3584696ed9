// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestLatency measures the time from the request that adds an endpoint, through
// etcd, the API server's watch, kube-nft and the kernel, until the first packet
// reaches that endpoint. It runs alone.
func TestLatency(t *testing.T) {
	s := newSite(t)
	s.serve()
	s.createNode(nodeAddrs...)
	agent := s.runAgent()
	agent.awaitProgrammed()
	web := s.createService("web", 1)
	s.answers(s.pods[0], "tcp", web.at(false), "pod-1")

	const samples = 50
	var written, reached []time.Duration
	for range samples {
		asked := make(chan time.Time, 1)
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		ready := make(chan struct{})
		go func() {
			close(ready)
			for ctx.Err() == nil { // as fast as it goes: half of them choose the new endpoint
				if a, err := s.pods[0].Ask(ctx, "tcp", web.at(false)); err == nil && a.Server == "pod-2" {
					break
				}
			}
			asked <- time.Now()
		}()
		<-ready
		began := time.Now()
		s.setEndpoints("web", false, 1, 2)
		written = append(written, time.Since(began))
		reached = append(reached, (<-asked).Sub(began))
		if ctx.Err() != nil {
			t.Fatal("the endpoint that was added was not reached")
		}
		cancel()
		s.setEndpoints("web", false, 1)
		s.answers(s.pods[0], "tcp", web.at(false), "pod-1")
	}
	slices.Sort(written)
	slices.Sort(reached)
	t.Logf("from the API request that adds an endpoint until its answer: median %v, maximum %v", median(written), written[samples-1])
	t.Logf("from the same request until the first packet reaches the endpoint: median %v, maximum %v", median(reached), reached[samples-1])

	var commits []time.Duration
	for _, line := range agent.logged("committed") {
		if took, ok := line["duration"].(float64); ok {
			commits = append(commits, time.Duration(took))
		}
	}
	slices.Sort(commits)
	t.Logf("of that kube-nft's pass and the kernel's commit: median %v, maximum %v of %d", median(commits), commits[len(commits)-1], len(commits))
	if got := median(reached); got > time.Second {
		t.Errorf("median of the time to the first packet is %v", got)
	}
}

func median(sorted []time.Duration) time.Duration {
	return sorted[len(sorted)/2].Round(time.Microsecond)
}

// TestNoLoss has endpoints come and go while every question is answered: there is
// not a moment in which a Service has none.
func TestNoLoss(t *testing.T) {
	s := newSite(t)
	s.serve()
	s.runAgent().awaitProgrammed()
	web := s.createService("web", 1, 2)
	s.answers(s.pods[0], "tcp", web.at(true), "pod-1", "pod-2")
	var stops []func() netlab.Tally
	for _, network := range []string{"tcp", "udp"} {
		stops = append(stops, s.traffic(s.pods[0], network, web.at(false)), s.traffic(s.client, network, web.at(true)))
	}
	for range 20 {
		for _, pods := range [][]int{{1}, {1, 2}, {2}, {2, 1}} {
			s.setEndpoints("web", false, pods...)
			s.setEndpoints("web", true, pods...)
		}
	}
	for _, stop := range stops {
		if tally := stop(); tally.Failed() > 0 || tally.Answered() == 0 {
			t.Errorf("while endpoints changed: %v", tally)
		}
	}
}
