// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"flag"
	"strings"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "of the first random cluster")
	stepsFlag = flag.Int("steps", 20, "how often the random cluster changes")
)

// TestRandom compares everything in a cluster that changes at random, after each step.
func TestRandom(t *testing.T) {
	t.Parallel()
	w := newTwins(t, defaults)
	g := newGenerator(*seedFlag)
	var did []string
	for step := range *stepsFlag {
		did = append(did, strings.Join(g.step(w), "; "))
		w.settle()
		w.report(w.run(matrix(g.plans)))
		if t.Failed() {
			t.Fatalf("-seed=%d -steps=%d. The node is in %s. What was done, a line for each step:\n%s", *seedFlag, step+1, w.zone, strings.Join(did, "\n"))
		}
	}
	t.Logf("seed %d, %d steps, %d probes", *seedFlag, *stepsFlag, w.probes)
}
