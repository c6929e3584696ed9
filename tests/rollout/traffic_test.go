// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// How often a flow asks. Together they leave the machine time for the control plane.
const (
	sayEvery = 10 * time.Millisecond // over a connection
	askEvery = 25 * time.Millisecond // anew
)

// flow is a client that asks for as long as the traffic runs: over one connection, or
// each time anew.
type flow struct {
	from    *netlab.Namespace
	network string
	to      netip.AddrPort
	anew    bool

	asked   atomic.Int64
	lost    atomic.Bool // a connection
	failed  int
	first   error // of those that failed
	at      time.Duration
	longest time.Duration // that an answer took
}

func (f *flow) String() string {
	kind := "one connection"
	if f.anew {
		kind = "new questions"
	}
	return fmt.Sprintf("%s %s from %s to %s", f.network, kind, f.from.Name(), f.to)
}

// traffic is many flows at once.
type traffic struct {
	flows  []*flow
	began  time.Time
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// startTraffic lets flows ask until stop; every connection stands when it returns.
func (s *site) startTraffic(flows []*flow) *traffic {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	tr := &traffic{flows: flows, began: time.Now(), cancel: cancel}
	for _, f := range flows {
		if f.anew {
			tr.wg.Go(func() { tr.ask(ctx, f) })
			continue
		}
		conn, err := f.from.Dial(ctx, f.network, f.to)
		s.Must(err)
		_, err = conn.Ask(ctx)
		s.Must(err)
		tr.wg.Go(func() {
			defer conn.Close()
			tr.converse(ctx, f, conn)
		})
	}
	s.t.Cleanup(func() { tr.stop() })
	return tr
}

// converse exchanges messages over one connection until it is lost.
func (tr *traffic) converse(ctx context.Context, f *flow, conn *netlab.Conn) {
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !tr.note(f, func() (netlab.Answer, error) { return conn.Ask(context.Background()) }) {
			return
		}
	}
}

// ask asks anew each time.
func (tr *traffic) ask(ctx context.Context, f *flow) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tr.note(f, func() (netlab.Answer, error) { return f.from.Ask(context.Background(), f.network, f.to) })
		}
	}
}

func (tr *traffic) note(f *flow, ask func() (netlab.Answer, error)) bool {
	began := time.Now()
	_, err := ask()
	f.asked.Add(1)
	f.longest = max(f.longest, time.Since(began))
	if err != nil {
		f.lost.Store(!f.anew)
		if f.failed++; f.first == nil {
			f.first, f.at = err, began.Sub(tr.began)
		}
	}
	return err == nil
}

// goOn returns when every flow has asked ten times more, or failed.
func (tr *traffic) goOn(s *site) {
	s.t.Helper()
	before := make([]int64, len(tr.flows))
	for i, f := range tr.flows {
		before[i] = f.asked.Load()
	}
	s.Eventually(soon, func() error {
		for i, f := range tr.flows {
			if f.asked.Load() < before[i]+10 && !f.lost.Load() {
				return fmt.Errorf("%v: waits for an answer", f)
			}
		}
		return nil
	})
}

// outcome is what became of traffic.
type outcome struct {
	connections, lost     int // which stay
	messages              int // over them
	questions, unanswered int // asked anew
	longest               time.Duration
	took                  time.Duration
	failures              []string
}

func (o outcome) String() string {
	return fmt.Sprintf("%d connections, %d lost, %d messages; %d new questions, %d unanswered; longest answer %v; %v",
		o.connections, o.lost, o.messages, o.questions, o.unanswered, o.longest.Round(time.Millisecond), o.took.Round(time.Second))
}

// stop ends the traffic and tells the outcome.
func (tr *traffic) stop() (o outcome) {
	tr.cancel()
	tr.wg.Wait()
	o.took = time.Since(tr.began)
	for _, f := range tr.flows {
		if f.anew {
			o.questions += int(f.asked.Load())
			o.unanswered += f.failed
		} else {
			o.connections++
			o.messages += int(f.asked.Load())
			o.lost += f.failed
		}
		o.longest = max(o.longest, f.longest)
		switch {
		case f.failed > 0:
			o.failures = append(o.failures, fmt.Sprintf("%v: %d of %d failed, first after %v: %v", f, f.failed, f.asked.Load(), f.at.Round(time.Millisecond), f.first))
		case f.asked.Load() == 0:
			o.failures = append(o.failures, fmt.Sprintf("%v: nothing was asked", f))
		}
	}
	return o
}

// lossless ends the traffic: everything must have been answered.
func (s *site) lossless(tr *traffic, during string) outcome {
	s.t.Helper()
	o := tr.stop()
	s.t.Logf("%s: %v", during, o)
	if len(o.failures) > 0 {
		s.t.Errorf("%s, not all was answered:\n%s", during, strings.Join(o.failures, "\n"))
	}
	return o
}

// flowsTo are clients of a Service everywhere: on each node a pod and the node itself
// ask for the ClusterIP, and the client outside for the node port; TCP in one family
// and UDP in the other one.
func (s *site) flowsTo(to service) (flows []*flow) {
	s.t.Helper()
	for i, n := range s.nodes {
		tcp, udp := i%2, (i+1)%2
		inside := s.podOn(n, "shop").Namespace
		flows = append(flows,
			&flow{from: inside, network: "tcp", to: to.at(tcp)},
			&flow{from: inside, network: "tcp", to: to.at(udp)},
			&flow{from: n.Namespace, network: "tcp", to: to.at(tcp)},
			&flow{from: s.client, network: "tcp", to: to.atNode(n, "tcp", tcp)},
			&flow{from: s.client, network: "tcp", to: to.atNode(n, "tcp", udp)},
			&flow{from: inside, network: "udp", to: to.at(udp)},
			&flow{from: inside, network: "tcp", to: to.at(tcp), anew: true},
			&flow{from: inside, network: "udp", to: to.at(udp), anew: true},
			&flow{from: n.Namespace, network: "tcp", to: to.at(udp), anew: true},
			&flow{from: s.client, network: "tcp", to: to.atNode(n, "tcp", tcp), anew: true},
			&flow{from: s.client, network: "udp", to: to.atNode(n, "udp", udp), anew: true},
		)
	}
	return flows
}
