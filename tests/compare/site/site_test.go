// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/setup"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestMain(m *testing.M) { setup.TestMain(m) }

// TestNode: the pods answer at every endpoint, a ClusterIP leads nowhere before a proxy
// runs, and to an endpoint or the API server when one does, from outside and from a pod.
func TestNode(t *testing.T) {
	s, err := shape.Parse("3x2")
	if err != nil {
		t.Fatal(err)
	}
	api, err := StartAPI(t.Context(), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, api.Close()) }()
	check(t, api.Load(t.Context(), s))
	n, err := api.NewNode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { check(t, n.Close()) }()

	for _, endpoint := range []netip.Addr{shape.Endpoint(0), shape.Endpoint(5), shape.WatchedEndpoint(0, 7)} {
		for _, network := range []string{"tcp", "udp"} {
			check(t, echo(t, n, network, netip.AddrPortFrom(endpoint, shape.TargetPort), n.Outside))
		}
	}
	if err := echo(t, n, "tcp", s.Frontend(1), n.Outside, netlab.Timeout(300*time.Millisecond)); !errors.Is(err, netlab.ErrTimeout) {
		t.Errorf("a Service without a proxy: %v", err)
	}
	r, err := n.Start(t.Context(), peer.All[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []netip.Addr{n.Outside, n.Inside} {
		for _, to := range []netip.AddrPort{s.Frontend(0), s.Frontend(2), shape.WatchedFrontend(1), shape.DNS} {
			check(t, netlab.Poll(10*time.Second, func() error { return errors.Join(r.Gone(), echo(t, n, "tcp", to, from)) }))
		}
		c, err := n.Client.Dial(t.Context(), "tcp", shape.Kubernetes, netlab.From(from))
		if err != nil {
			t.Error(err)
			continue
		}
		check(t, c.Close())
	}
	check(t, echo(t, n, "udp", shape.DNS, n.Inside))
	check(t, r.Stop(5*time.Second))
	if r.Gone() == nil {
		t.Error("it still runs")
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// echo sends a word and waits for its return.
func echo(t *testing.T, n *Node, network string, to netip.AddrPort, from netip.Addr, opts ...netlab.Option) error {
	c, err := n.Client.Dial(t.Context(), network, to, append(opts, netlab.From(from))...)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("word")); err != nil {
		return err
	}
	buf := make([]byte, 8)
	size, err := c.Read(buf)
	if err == nil && string(buf[:size]) != "word" {
		err = errors.New("another word: " + string(buf[:size]))
	}
	return err
}
