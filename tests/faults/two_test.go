// SPDX-License-Identifier: Apache-2.0

package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/process"
)

// TestTwo starts a second kube-nft beside the first, as it is and with other Services.
// It refuses, and the first one goes on unharmed.
func TestTwo(t *testing.T) {
	s := newSite(t, moving(0).objects()...)
	s.start()
	s.ready()
	nothing := newManifests(t)
	nothing.put(t, nodeObject())
	tr := s.carry(steady, sticky)
	o := outcome{fault: "a second kube-nft", before: s.vitals()}
	for step, flags := range [][]string{s.flags, {"--manifests", nothing.dir}, {"--manifests", nothing.dir, "--masquerade-all"}} {
		first := s.flags
		s.flags = flags
		second := process.Start(t, s.node, process.KubeNFT(), s.arguments("--healthz-port", "0", "--metrics-port", "0")...)
		s.flags = first
		if code := second.Exit(soon); code == 0 {
			t.Errorf("a second kube-nft ended with status 0:\n%s", second.Tail(5))
		}
		if text := second.Text(); !strings.Contains(text, "kube-nft") || !strings.Contains(text, "already") {
			t.Errorf("a second kube-nft does not say why it ends:\n%s", text)
		}
		o.injected++
		began := time.Now()
		s.objects.put(t, moving(step+1).objects()...)
		s.right(soon)
		o.repair = max(o.repair, time.Since(began))
	}
	o.after = s.vitals()
	s.conclude(o, tr)
}
