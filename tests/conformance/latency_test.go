// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestLatency measures, side by side, how long a change takes from its write to the
// API until the first packet meets it. It compares nothing: the figures are for the
// log. kube-proxy waits a second between two passes unless it is told otherwise, as it
// is here.
func TestLatency(t *testing.T) {
	w := newTwins(t, defaults)
	p := &plan{name: "web", index: 1, ports: []port{{protocol: tcp, number: 80}}, slices: one(endpoint{pod: "a"})}
	w.write(p)
	w.settle()
	const changes = 15
	var ours, theirs [2][]time.Duration
	for i := range changes {
		for kind, change := range []func() (path string, object any){
			func() (string, any) {
				p.slices = one(endpoint{pod: []string{"b", "a"}[i%2]})
				return slicesPath + "/" + p.endpointSlices()[0].Name, p.endpointSlices()[0]
			},
			func() (string, any) {
				p.ports[0].number++
				return servicesPath + "/" + p.name, p.service()
			},
		} {
			path, object := change()
			at := netip.AddrPortFrom(p.clusterIPs()[0], uint16(p.ports[0].number))
			want := p.slices[0][0].pod + ":8080"
			o, th := make(chan time.Duration, 1), make(chan time.Duration, 1)
			began := time.Now()
			go w.ours.awaitServer(at, want, began, o)
			go w.theirs.awaitServer(at, want, began, th)
			w.do(http.MethodPut, path, object, nil)
			ours[kind], theirs[kind] = append(ours[kind], <-o), append(theirs[kind], <-th)
		}
	}
	for kind, name := range []string{"endpoint replaced", "port changed"} {
		t.Logf("%s, median (longest) of %d: kube-nft %s, kube-proxy %s", name, changes, summary(ours[kind]), summary(theirs[kind]))
	}
}

// awaitServer reports when the server answered for the first time.
func (s *site) awaitServer(at netip.AddrPort, want string, began time.Time, result chan<- time.Duration) {
	err := netlab.Poll(soon, func() error {
		a, err := s.node.Ask(context.Background(), "tcp", at, netlab.Timeout(100*time.Millisecond))
		if err == nil && a.Server != want {
			err = fmt.Errorf("%s answers", a.Server)
		}
		return err
	})
	if err != nil {
		began = time.Now().Add(-soon)
	}
	result <- time.Since(began)
}

func summary(all []time.Duration) string {
	slices.Sort(all)
	const unit = 100 * time.Microsecond
	return fmt.Sprintf("%v (%v)", all[len(all)/2].Round(unit), all[len(all)-1].Round(unit))
}
