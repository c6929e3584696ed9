// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// askEvery is how often a flow asks, but in the soak, and lost how long it waits: a busy
// machine may take its time.
const (
	askEvery = 20 * time.Millisecond
	lost     = 5 * time.Second
)

// once asks over a new connection. What TCP had to send again is a loss here, too.
func (f flow) once(ctx context.Context) error {
	_, err := f.from.Ask(ctx, f.network, f.to, netlab.Timeout(lost), netlab.Lossless())
	return err
}

// flow is a client that asks anew each time, or over one connection.
type flow struct {
	from    *netlab.Namespace
	network string
	to      netip.AddrPort
	stays   bool
}

func (f flow) String() string { return fmt.Sprintf("%s from %s to %s", f.network, f.from.Name(), f.to) }

// traffic is many flows at once.
type traffic struct {
	asked, lost atomic.Int64

	site   *site
	every  time.Duration
	again  int // what servers had sent again before it began
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	first  error // of those that were lost
}

// flowsTo are the ways to a Service: from outside, a pod and the node itself, to the
// ClusterIP and the node port, over TCP and UDP, in both families.
func (s *site) flowsTo(to spec) (flows []flow) {
	for _, f := range to.families() {
		tcp, udp := []string{"tcp", "udp"}[f], []string{"udp", "tcp"}[f]
		flows = append(flows,
			flow{from: s.client, network: tcp, to: to.at(f)},
			flow{from: s.client, network: udp, to: to.at(f)},
			flow{from: s.pods[0], network: udp, to: to.at(f)},
			flow{from: s.node, network: tcp, to: to.at(f)},
			flow{from: s.client, network: "tcp", to: to.at(f), stays: true},
		)
		if to.nodePort != 0 {
			flows = append(flows, flow{from: s.client, network: udp, to: netip.AddrPortFrom(nodeAddr[f], uint16(to.nodePort))})
		}
	}
	return flows
}

// carry lets clients ask the Services that do not change, until stop.
func (s *site) carry(to ...spec) *traffic {
	s.t.Helper()
	return s.carryOnly(func(flow) bool { return true }, askEvery, to...)
}

// carryOnly is carry for some of the flows, each so often.
func (s *site) carryOnly(wanted func(flow) bool, every time.Duration, to ...spec) *traffic {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{site: s, every: every, again: s.sentAgain(), cancel: cancel}
	for _, one := range to {
		for _, f := range s.flowsTo(one) {
			if !wanted(f) {
				continue
			}
			s.Eventually(soon, func() error { return f.once(ctx) })
			tr.wg.Go(func() { tr.run(ctx, f) })
		}
	}
	s.t.Cleanup(func() { tr.stop() })
	return tr
}

func (tr *traffic) run(ctx context.Context, f flow) {
	var conn *netlab.Conn
	tick := time.NewTicker(tr.every)
	defer tick.Stop()
	for ctx.Err() == nil {
		ask := func() error { return f.once(context.Background()) }
		if f.stays {
			if conn == nil {
				var err error
				if conn, err = f.from.Dial(ctx, f.network, f.to, netlab.Timeout(lost)); err != nil {
					tr.note(f, err)
					continue
				}
				defer conn.Close()
			}
			ask = func() error { _, err := conn.Ask(context.Background()); return err }
		}
		err := ask()
		tr.note(f, err)
		if f.stays && err != nil {
			conn.Close()
			conn = nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (tr *traffic) note(f flow, err error) {
	tr.asked.Add(1)
	if err == nil {
		return
	}
	tr.lost.Add(1)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.first == nil {
		tr.first = fmt.Errorf("%v: %w", f, err)
	}
}

// stop ends the traffic. What servers had to send again was lost, too.
func (tr *traffic) stop() {
	tr.cancel()
	tr.wg.Wait()
	now := tr.site.sentAgain()
	if n := now - tr.again; n > 0 {
		tr.again = now
		tr.lost.Add(int64(n))
		tr.first = cmp.Or(tr.first, fmt.Errorf("servers: %w", netlab.ErrSentAgain))
	}
}

// sentAgain is how many packets of TCP the pods' servers have had to send again.
func (s *site) sentAgain() (n int) {
	for _, pod := range s.pods {
		n += pod.SentAgain()
	}
	return n
}
