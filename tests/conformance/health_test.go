// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

const healthPort kind = "healthCheckNodePort"

// TestHealth compares what load balancers are told of the endpoints on a node (A1.13).
func TestHealth(t *testing.T) {
	t.Parallel()
	w := newTwins(t, defaults)
	plans := []*plan{
		{name: "health-local", slices: one(endpoint{pod: "a"}, endpoint{pod: "b"}, endpoint{pod: "c"})},
		{name: "health-remote", slices: one(endpoint{pod: "c"})},
		{name: "health-ends", slices: one(endpoint{pod: "a", state: terminating})},
		{name: "health-none"},
	}
	var probes []probe
	for i, p := range plans {
		p.index, p.typ, p.etp, p.ingress = i+1, typeLoadBalancer, true, own
		w.write(p)
		for f := range families {
			for _, addr := range []netip.Addr{nodeAddrs[f], otherAddrs[f]} {
				at := netip.AddrPortFrom(addr, uint16(p.service().Spec.HealthCheckNodePort))
				probes = append(probes, probe{p, "client", target{kind: healthPort, network: "tcp", at: at}})
			}
		}
	}
	w.settle()
	w.settle() // listeners follow a pass, and come before the next one
	w.report(w.each(len(probes), func(i int) (p probe, ours, theirs result) {
		p = probes[i]
		// What is told follows what is programmed a little later.
		_ = netlab.Poll(soon, func() error {
			ours, theirs = w.ours.getHealth(t.Context(), p), w.theirs.getHealth(t.Context(), p)
			if !ours.same(theirs) {
				return fmt.Errorf("%v, not %v", ours, theirs)
			}
			return nil
		})
		return p, ours, theirs
	}))
	checkDifferences(t, plans)
}

// getHealth returns all that a load balancer may read.
func (s *site) getHealth(ctx context.Context, p probe) result {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return s.clients[p.from].Dial(ctx, network, p.to.at, netlab.Timeout(time.Second))
		},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/healthz", p.to.at), nil)
	if err != nil {
		return result{err.Error(): 1}
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return result{failure(err, "tcp"): 1}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return result{err.Error(): 1}
	}
	return result{fmt.Sprintf("%s, %s, weight %q: %s", response.Status, response.Header.Get("Content-Type"),
		response.Header.Get("X-Load-Balancing-Endpoint-Weight"), strings.Join(strings.Fields(string(body)), "")): 1}
}
