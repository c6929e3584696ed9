// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/process"
)

// What kube-nft's log says of the API.
const (
	unanswered   = "Kubernetes API does not answer"
	answersAgain = "Kubernetes API answers again"
)

// TestOutage kills the API server for a minute, in which a kube-nft is killed too.
// Traffic goes on everywhere, what was under way is caught up with, and what has not
// changed meanwhile is not written again.
func TestOutage(t *testing.T) {
	outage := time.Minute
	if testing.Short() {
		outage = 15 * time.Second
	}
	s := newSite(t, 5)
	for _, n := range s.nodes {
		s.createPod(n, "web")
		s.createPod(n, "shop")
	}
	grown, doomed := s.createPod(s.nodes[0], "grows"), s.createPod(s.nodes[1], "shrinks")
	swings := []*pod{s.createPod(s.nodes[1], "swings"), s.createPod(s.nodes[3], "swings")}
	agents := s.runAgents()
	stays, goes := s.apply("stays", "web", "type: NodePort"), s.apply("goes", "web", "type: NodePort")
	grows, shrinks, churned := s.apply("grows", "grows"), s.apply("shrinks", "shrinks"), s.apply("swings", "swings")
	monitors := make([]*process.Monitor, len(s.nodes))
	for i, n := range s.nodes {
		for f := range families {
			s.Answers(soon, n.Namespace, "udp", stays.at(f), names(s.podsOf("web"))...)
			s.Answers(soon, n.Namespace, "tcp", goes.at(f), names(s.podsOf("web"))...)
			s.Answers(soon, n.Namespace, "tcp", grows.at(f), grown.Name())
			s.Answers(soon, n.Namespace, "tcp", shrinks.at(f), doomed.Name())
		}
		monitors[i] = process.StartMonitor(t, n.Namespace)
	}
	stopChurn := s.churn(swings[1])
	tr := s.startTraffic(s.flowsTo(stays))
	tr.goOn(s)

	s.Must(s.api.Kill())
	away := time.After(outage)
	for i, agent := range agents {
		agent.Await(soon, unanswered)
		monitors[i].Events()
	}
	agents[2].End(syscall.SIGKILL)
	agents[2] = s.startAgent(s.nodes[2])
	agents[2].Await(soon, unanswered)
	<-away
	agents[2].AwaitStatus(soon, livez, http.StatusOK)
	agents[2].AwaitStatus(soon, readyz, http.StatusServiceUnavailable)
	if lines := agents[2].Logged(programmed); len(lines) > 0 {
		t.Errorf("kube-nft took what it cannot know for programmed: %v", lines)
	}
	for i, m := range monitors {
		if events := m.Events(); len(events) > 0 {
			t.Errorf("while the API was away the tables of %s changed:\n%s", s.nodes[i].Name(), strings.Join(events, "\n"))
		}
	}

	s.Must(s.api.Restart(t.Context()))
	returned := time.Now()
	more := s.createPod(s.nodes[4], "grows")
	comes := s.apply("comes", "web", "type: NodePort")
	s.kubectl("", "delete", "service", "goes")
	s.reapPod(doomed)
	for i, agent := range agents {
		agent.Await(patience, programmed)
		agent.AwaitStatus(soon, readyz, http.StatusOK)
		if i != 2 {
			agent.Await(patience, answersAgain)
		}
	}
	t.Logf("every kube-nft has its watches again %v after the API's return", time.Since(returned).Round(time.Millisecond))
	changed := stopChurn()
	s.setReady(swings[1], true)
	for _, n := range s.nodes {
		for f := range families {
			s.Answers(2*patience, n.Namespace, "tcp", comes.at(f), names(s.podsOf("web"))...)
			s.Answers(2*patience, n.Namespace, "tcp", grows.at(f), grown.Name(), more.Name())
			s.Answers(2*patience, n.Namespace, "tcp", churned.at(f), names(swings)...)
			s.Answers(2*patience, n.Namespace, "tcp", shrinks.at(f))
		}
	}
	t.Logf("all is as it should be %v after the API's return; the churn made %d changes", time.Since(returned).Round(time.Millisecond), changed)
	for i, n := range s.nodes { // nobody answers, which takes its time to find out
		s.Answers(soon, n.Namespace, "tcp", goes.at(i%2))
	}
	tr.goOn(s)
	s.lossless(tr, fmt.Sprintf("the API server was away for %v", outage))
	for _, m := range monitors {
		m.Spared(stays.addrs[0].String(), stays.addrs[1].String(),
			fmt.Sprint(stays.nodePorts["tcp"]), fmt.Sprint(stays.nodePorts["udp"]))
	}
}

// churn has a pod be ready and not, over and over, whether the API takes it or not,
// until stop, which says how often it was taken.
func (s *site) churn(p *pod) (stop func() int) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	changes := 0
	wg.Go(func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ready := false; ctx.Err() == nil; ready = !ready {
			if s.api.Do(ctx, http.MethodPatch, podsPath+"/"+p.Name()+"/status", podStatus(p, ready), nil) == nil {
				changes++
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	s.t.Cleanup(cancel)
	return func() int {
		cancel()
		wg.Wait()
		return changes
	}
}
