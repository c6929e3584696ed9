// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// divergence is a question to which the two gave different answers.
type divergence struct {
	plan         *plan
	from         string
	to           target
	ours, theirs result
}

func (d divergence) String() string {
	return fmt.Sprintf("%s: %s of %s, %s %s from %s:\n\t-kube-proxy  %v\n\t+kube-nft    %v",
		d.plan.name, d.to.kind, cmpType(d.plan), d.to.network, d.to.at, d.from, d.theirs, d.ours)
}

// probe is one question.
type probe struct {
	plan *plan
	from string
	to   target
}

// matrix returns everybody's questions to all that the plans have.
func matrix(plans []*plan) (all []probe) {
	for _, p := range plans {
		for _, to := range p.targets() {
			for _, from := range clientNames {
				if to.kind == nodePortLoop && from != nodeName {
					continue // it is somebody else's own
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

// run compares the answers to all questions and returns those that differ, in the
// order of the questions. What conntrack remembers of earlier questions is forgotten
// first, or a UDP client whose port comes again would be led where it was led then.
func (w *twins) run(probes []probe) []divergence {
	w.t.Helper()
	w.Must(w.ours.forgetFlows(), w.theirs.forgetFlows())
	found := make([]*divergence, len(probes))
	next := make(chan int)
	var wg sync.WaitGroup
	for range askers {
		wg.Go(func() {
			for i := range next {
				p := probes[i]
				ours, theirs := w.compare(p.from, p.to)
				if !ours.same(theirs) {
					found[i] = &divergence{p.plan, p.from, p.to, ours, theirs}
				}
			}
		})
	}
	for i := range probes {
		next <- i
	}
	close(next)
	wg.Wait()
	w.probes += len(probes)
	var all []divergence
	for _, d := range found {
		if d != nil {
			all = append(all, *d)
		}
	}
	return all
}

// report fails the test for divergences that are not known, with the objects of their
// Services.
func (w *twins) report(all []divergence) {
	w.t.Helper()
	const limit = 12 // lines for each Service
	shown := make(map[*plan]int)
	var order []*plan
	text := make(map[*plan]*strings.Builder)
	for _, d := range all {
		if explained(d) {
			continue
		}
		if !slices.Contains(order, d.plan) {
			order, text[d.plan] = append(order, d.plan), new(strings.Builder)
		}
		if shown[d.plan]++; shown[d.plan] <= limit {
			fmt.Fprintln(text[d.plan], d)
		}
	}
	for _, p := range order {
		w.t.Errorf("%d answers differ for %s:\n%s%s", shown[p], p.name, text[p], w.yaml(p.name))
	}
}
