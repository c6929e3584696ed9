// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/faults/inject"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// errnos are what the kernel may say to a netlink call, or its socket to one.
var errnos = []struct {
	name  string
	errno unix.Errno
}{
	{"ENOBUFS", unix.ENOBUFS},
	{"EINTR", unix.EINTR},
	{"EAGAIN", unix.EAGAIN},
	{"EBUSY", unix.EBUSY},
	{"ENOMEM", unix.ENOMEM},
	{"EPERM", unix.EPERM},
}

// TestKernelRefuses has calls to the kernel fail, of each kind with each error: not
// made; made by the kernel and reported as failed; and answers that are lost after the
// kernel has done what was asked, so that the outcome is unknown.
func TestKernelRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t, append(moving(0).objects(), crowd(200)...)...)
	s.startInjected(nil)
	s.ready()
	s.talk(moving(0))
	step := 0
	for _, e := range errnos {
		for _, topic := range []inject.Topic{inject.Transaction, inject.Question, inject.Conntrack} {
			tr := s.carry(steady, sticky)
			o := outcome{fault: fmt.Sprintf("%s, %s", e.name, topic), before: s.vitals()}
			for _, op := range []inject.Op{inject.Send, inject.Receive} {
				for _, verdict := range []inject.Verdict{inject.Fail(e.errno), inject.Lose(e.errno)} {
					step++
					n, repair := s.refuse(op, topic, verdict, step)
					o.injected += n
					o.repair = max(o.repair, repair)
				}
			}
			o.after = s.vitals()
			s.conclude(o, tr)
		}
	}
}

// refusals is how often in a row a call fails.
const refusals = 2

// refuse has calls fail while a Service changes, and returns how many did, and how long
// it took from the change until the tables were right.
func (s *site) refuse(op inject.Op, topic inject.Topic, verdict inject.Verdict, step int) (hits int, took time.Duration) {
	s.t.Helper()
	s.objects.put(s.t, moving(3).objects()...) // from all pods to some of them: flows become stale, too
	s.right(soon)
	before := len(s.injector.Hits())
	rule := inject.Times(refusals, verdict, inject.Of(op, topic))
	if topic == inject.Question {
		rule = afterLoss(rule)
	}
	s.injector.Set(rule)
	began := time.Now()
	s.objects.put(s.t, moving(step%3).objects()...)
	// Until it was hit the tables may be right by what was there before.
	s.must(fmt.Sprintf("%v %v: not hit", op, topic), soon, func() error {
		if hits = len(s.injector.Hits()) - before; hits == 0 {
			return fmt.Errorf("%d calls, none of them hit", s.injector.Calls())
		}
		return nil
	})
	s.right(soon)
	took = time.Since(began)
	s.follows(moving(step % 3))
	s.injector.Set(nil)
	return len(s.injector.Hits()) - before, took
}

// afterLoss has the answer to one transaction lost, so that tables are compared, and
// then goes by a rule.
func afterLoss(rule inject.Rule) inject.Rule {
	lose := inject.Times(1, inject.Lose(unix.ENOBUFS), inject.Of(inject.Receive, inject.Transaction))
	return func(c inject.Call) inject.Verdict {
		if v := lose(c); v != (inject.Verdict{}) {
			return v
		}
		return rule(c)
	}
}

// talk opens a UDP flow to a Service, in each family.
func (s *site) talk(to spec) {
	s.t.Helper()
	for f := range s.flows {
		conn, err := s.client.Dial(s.t.Context(), "udp", to.at(f), netlab.Timeout(lost))
		s.Must(err)
		s.t.Cleanup(func() { conn.Close() })
		s.flows[f] = conn
	}
}

// follows waits until the flows, which never end, lead to a Service's endpoints: what
// conntrack remembers of those that have left is gone.
func (s *site) follows(to spec) {
	s.t.Helper()
	for _, conn := range s.flows {
		s.must("a UDP flow", soon, func() error {
			a, err := conn.Ask(s.t.Context())
			if err != nil {
				return err
			}
			for i, pod := range s.pods {
				if pod.Name() == a.Server && slices.Contains(to.pods, realPod(i)) {
					return nil
				}
			}
			return fmt.Errorf("leads to %s still, which is not an endpoint any more", a.Server)
		})
	}
}

// must is Eventually with a word on what it is about.
func (s *site) must(what string, within time.Duration, f func() error) {
	s.t.Helper()
	if err := netlab.Poll(within, f); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}
