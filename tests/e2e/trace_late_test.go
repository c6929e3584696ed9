// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/nft/trace"
)

// TestTraceLate: a trace that was kept from running until after its end tells of all
// packets that came meanwhile, and of none that it has heard a half of.
func TestTraceLate(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.write(t, "web.yaml", withSlices(service("web", 1, everyProtocol(80)...), c.a, c.r)...)
	c.run(t, "--cluster-cidr", clusterCIDR)
	dst := netip.AddrPortFrom(clusterIP(1)[ip4], 80)
	const length, packets = 3 * time.Second, 20
	begin := time.Now()
	p := c.trace(t, dst.String()+"/udp", "--for", length.String())
	c.Must(p.cmd.Process.Signal(syscall.SIGSTOP))
	for range packets {
		_, err := c.client.ask("udp", dst, patience)
		c.Must(err)
	}
	time.Sleep(time.Until(begin.Add(length + time.Second)))
	c.Must(p.cmd.Process.Signal(syscall.SIGCONT))
	if code := p.code(t); code != 0 {
		t.Errorf("code %d", code)
	}
	told := p.packets(t)
	if len(told) != packets {
		t.Errorf("told of %d packets, want %d", len(told), packets)
	}
	for _, one := range told {
		if one.Outcome != trace.Forwarded || one.Destination != dst {
			t.Errorf("a packet to %s: %s %s, want %s", one.Destination, one.Outcome, one.Reason, trace.Forwarded)
		}
	}
}
