// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// probe is one question.
type probe struct {
	plan *plan
	from string
	to   target
}

// divergence is a question to which the two gave different answers.
type divergence struct {
	probe
	ours, theirs result
}

func (d divergence) String() string {
	return fmt.Sprintf("%s of %s, %s %s from %s:\n\t-kube-proxy  %v\n\t+kube-nft    %v",
		d.to.kind, d.plan.name, d.to.network, d.to.at, d.from, d.theirs, d.ours)
}

// matrix returns everybody's questions to all that the plans have.
func matrix(plans []*plan) (all []probe) {
	for _, p := range plans {
		for _, to := range p.targets() {
			for _, from := range clientNames {
				if to.kind == nodePortLoop && from != nodeName {
					continue // it is somebody else's own
				}
				if from == "f" && !p.has(from) {
					continue
				}
				all = append(all, probe{p, from, to})
			}
		}
	}
	return all
}

// askers is how many questions are on their way at a time: most of the time of
// those that nobody answers is spent waiting.
const askers = 48

// run compares the answers to all questions. What conntrack remembers of earlier ones
// is forgotten first, or a UDP client whose port comes again would be led where it was
// led then.
func (w *twins) run(probes []probe) []divergence {
	w.t.Helper()
	w.Must(w.ours.forgetFlows(), w.theirs.forgetFlows())
	return w.each(len(probes), func(i int) (probe, result, result) {
		ours, theirs := w.compare(probes[i])
		return probes[i], ours, theirs
	})
}

// each makes n comparisons and returns those that came out different, in order.
func (w *twins) each(n int, compare func(i int) (p probe, ours, theirs result)) (all []divergence) {
	found := make([]*divergence, n)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(askers, n) {
		wg.Go(func() {
			for i := range next {
				if p, ours, theirs := compare(i); !ours.same(theirs) {
					found[i] = &divergence{p, ours, theirs}
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	w.probes += n
	for _, d := range found {
		if d != nil {
			all = append(all, *d)
		}
	}
	return all
}

// report fails the test for divergences that no difference explains, with the objects
// of their Services.
func (w *twins) report(all []divergence) {
	w.t.Helper()
	const limit = 12 // for each Service
	var order []*plan
	lines := make(map[*plan][]string)
	for _, d := range all {
		if e := explain(d); e != nil {
			e.count(d.plan.name)
			continue
		}
		if !slices.Contains(order, d.plan) {
			order = append(order, d.plan)
		}
		lines[d.plan] = append(lines[d.plan], d.String())
	}
	for _, p := range order {
		shown := lines[p][:min(limit, len(lines[p]))]
		w.t.Errorf("%d answers differ for %s:\n%s\n%s", len(lines[p]), p.name, strings.Join(shown, "\n"), w.yaml(p.name))
	}
}
