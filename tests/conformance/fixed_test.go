// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestFixed(t *testing.T) {
	began := time.Now()
	w := newTwins(t, defaults)
	t.Logf("ready after %v", time.Since(began))
	p := &plan{name: "web", index: 1, typ: corev1.ServiceTypeLoadBalancer, external: []string{"own"}, ingress: []ingress{{ip: "own"}},
		slices: [][]endpoint{{{pod: "a"}, {pod: "b"}, {pod: "c"}}}}
	w.write(p)
	w.settle()
	t.Logf("settled after %v", time.Since(began))
	w.report(w.run(matrix([]*plan{p})))
	t.Logf("%d probes after %v", w.probes, time.Since(began))
	t.Log(w.yaml("web"))
}
