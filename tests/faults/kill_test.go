// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/faults/inject"
)

// killing is work of kube-nft's that is cut short.
type killing struct {
	name string
	// before makes the table that the victim finds, and what it is to be then.
	before func(s *site)
	flags  []string
	// change is made once the victim runs; nil kills it in its start.
	change  func(s *site)
	carried bool // Services that do not change are there all the while
}

func killings() []killing {
	nothing := func(*site) {}
	return []killing{
		{
			name:   "cold start",
			before: func(s *site) { s.Run(s.node, "nft", "flush", "ruleset") },
		},
		{
			name:    "start beside what is left",
			before:  func(s *site) { s.objects.put(s.t, moving(1).objects()...) },
			carried: true,
		},
		{
			name:    "table replaced",
			before:  nothing,
			flags:   []string{"--masquerade-all"},
			carried: true,
		},
		{
			name:    "change",
			before:  nothing,
			change:  func(s *site) { s.objects.put(s.t, moving(2).objects()...) },
			carried: true,
		},
		{
			name:   "change of features",
			before: nothing,
			change: func(s *site) {
				local := moving(2)
				local.local = true
				s.objects.put(s.t, local.objects()...)
			},
			carried: true,
		},
	}
}

// TestKilled kills kube-nft at every step of a commit: before each transaction that it
// hands to the kernel, and after the kernel has committed it but before kube-nft knows.
// Each time another one starts, finds what there is, and makes it right.
func TestKilled(t *testing.T) {
	for _, k := range killings() {
		t.Run(k.name, func(t *testing.T) {
			s := newSite(t, append(moving(0).objects(), crowd(60)...)...)
			s.start()
			s.ready()
			o := outcome{fault: "SIGKILL, " + k.name, before: s.vitals()}
			var tr *traffic
			if k.carried {
				tr = s.carry(steady, sticky)
			}
			for step := 1; ; step++ {
				s.agent.End(syscall.SIGKILL)
				s.objects.put(t, moving(0).objects()...)
				s.restart()
				if k.change == nil {
					s.agent.End(syscall.SIGKILL)
				}
				k.before(s)
				if !s.killAt(step, k.flags, k.change) {
					break // it has come to its end
				}
				o.injected++
				began := time.Now()
				s.restart()
				o.repair = max(o.repair, time.Since(began))
			}
			o.after = s.vitals()
			s.conclude(o, tr)
		})
	}
}

// restart starts kube-nft as it is meant to be, and waits until all is right.
func (s *site) restart() {
	s.t.Helper()
	s.start()
	s.ready()
}

// killAt runs a kube-nft that is killed at a step: odd ones are before a transaction,
// even ones after it. It reports whether there was such a step.
func (s *site) killAt(step int, flags []string, change func(*site)) bool {
	s.t.Helper()
	if change != nil {
		s.agent.End(syscall.SIGKILL)
	}
	verdict := inject.Kill()
	if step%2 == 0 {
		verdict = inject.KillAfter()
	}
	n := 0
	rule := func(c inject.Call) inject.Verdict {
		if c.Op != inject.Send || c.Topic != inject.Transaction {
			return inject.Verdict{}
		}
		if n++; n != (step+1)/2 {
			return inject.Verdict{}
		}
		return verdict
	}
	if change == nil {
		s.startInjected(rule, flags...)
	} else {
		s.startInjected(nil, flags...)
		s.ready()
		s.injector.Set(rule)
		change(s)
	}
	killed := false
	s.must(fmt.Sprintf("step %d", step), soon, func() error {
		if killed = s.agent.Gone() != nil; killed {
			return nil
		}
		if len(s.agent.Logged("everything is programmed")) == 0 {
			return fmt.Errorf("neither killed nor done")
		}
		if change != nil {
			return s.compare(s.t.Context())
		}
		return nil
	})
	s.injector.Set(nil)
	if !killed && len(s.injector.Hits()) > 0 {
		s.agent.Exit(soon) // what it had committed was right already
		return true
	}
	return killed
}
