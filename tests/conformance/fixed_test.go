// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"
	"time"
)

func TestFixed(t *testing.T) {
	t.Parallel()
	began := time.Now()
	w := newTwins(t, defaults)
	t.Logf("ready after %v", time.Since(began))
	plans := fixed()
	for _, p := range plans {
		w.write(p)
	}
	w.settle()
	t.Logf("settled after %v", time.Since(began))
	w.report(w.run(matrix(plans)))
	checkDifferences(t, plans)
	t.Logf("%d Services, %d probes after %v", len(plans), w.probes, time.Since(began))
}
