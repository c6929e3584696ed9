// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/kubelet"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// moveFlow takes the endpoint of a UDP flow away. The flow goes on at the other one,
// which takes deleting what the kernel tracks of it.
func (s *site) moveFlow(service *corev1.Service, at netip.AddrPort) {
	s.t.Helper()
	conn, err := s.client.Dial(s.t.Context(), "udp", at)
	s.Must(err)
	defer conn.Close()
	answer, err := conn.Ask(s.t.Context())
	s.Must(err)
	left := 1
	if answer.Server == "pod-1" {
		left = 2
	}
	s.setEndpoints(service.Name, left)
	s.Eventually(soon, func() error {
		now, err := conn.Ask(s.t.Context())
		if err == nil && now.Server == answer.Server {
			err = fmt.Errorf("the flow is still %s's", now.Server)
		}
		return err
	})
	s.setEndpoints(service.Name, 1, 2)
	s.answers("udp", at, "pod-1", "pod-2")
}

// drift removes the table, which the kernel tells kube-nft, which makes it again.
func (s *site) drift(at netip.AddrPort) {
	s.t.Helper()
	s.Must(s.table())
	s.Must(s.node.NFT("delete table ip kube-nft"))
	s.answers("tcp", at, "pod-1", "pod-2")
	s.Must(s.table())
}

// end stops the container as the kubelet does. It ends by itself, and at once; the
// table stays, and serves until the next pod, which finds it as it should be.
func (s *site) end(pod *kubelet.Pod, at netip.AddrPort) {
	s.t.Helper()
	stop := s.traffic(at)
	began := time.Now()
	code, err := pod.Stop(s.t.Context(), container)
	took := time.Since(began)
	s.Must(err)
	if code != 0 || took > 5*time.Second {
		s.t.Errorf("SIGTERM: exit code %d after %v", code, took)
	}
	s.Must(s.table())
	s.answers("tcp", at, "pod-1", "pod-2")
	s.Must(pod.Remove(s.t.Context()))

	next := pod.Object.DeepCopy()
	next.ObjectMeta.Reset()
	next.Name, next.Namespace = pod.Object.Name+"-2", pod.Object.Namespace
	again, err := s.kubelet.Run(s.t.Context(), next)
	s.Must(err)
	s.Must(again.AwaitReady(s.t.Context(), soon))
	var wrote netlab.Output
	_, _ = wrote.Write([]byte(again.Log(container)))
	const programmed = "everything is programmed"
	if wrote.Count(programmed, "added=0", "deleted=0") != 1 {
		s.t.Errorf("the next pod should find the table as it should be: %q", wrote.Lines(programmed))
	}
	tally := stop()
	if tally.Failed() > 0 || tally.Answered() == 0 {
		s.t.Errorf("while the pod was replaced: %v", tally)
	}
	s.t.Logf("ended %v after SIGTERM; while the pod was replaced: %v", took.Round(time.Millisecond), tally)
}

// traffic asks every 10 ms, each time over a new connection, until what it returns
// is called.
func (s *site) traffic(at netip.AddrPort) (stop func() netlab.Tally) {
	ctx, cancel := context.WithCancel(s.t.Context())
	result := make(chan netlab.Tally, 1)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		result <- netlab.Many(ctx, 1<<30, 1, func(int) (netlab.Answer, error) {
			<-tick.C
			return s.client.Ask(context.Background(), "tcp", at)
		})
	}()
	return func() netlab.Tally {
		cancel()
		return <-result
	}
}

// table is whether nft lists kube-nft's.
func (s *site) table() error {
	text, err := s.node.Ruleset()
	if err == nil && !slices.Contains(strings.Split(text, "\n"), "table ip kube-nft {") {
		err = errors.New("nft list ruleset has no table ip kube-nft")
	}
	return err
}
