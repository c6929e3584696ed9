// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// outage is how long the API is away in TestOutage.
const outage = 20 * time.Second

// TestOutage kills the API server under traffic. Nothing stops, nothing is
// written, and what changes on its return arrives without a rewrite of the rest.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	s.createNode(nodeAddrs...)
	agent := s.runAgent()
	agent.awaitProgrammed()
	stays, grows, goes := s.createService("stays", 1, 2), s.createService("grows", 1), s.createService("goes", 1)
	s.answers(s.client, "udp", stays.at(true), "pod-1", "pod-2")
	s.answers(s.client, "udp", grows.at(true), "pod-1")
	s.answers(s.client, "udp", goes.at(true), "pod-1")
	stop := s.allTraffic(stays)
	m := s.startMonitor()

	s.Must(s.api.Kill())
	<-time.After(outage)
	if events := m.Events(); len(events) > 0 {
		t.Errorf("while the API was away the tables changed:\n%s", strings.Join(events, "\n"))
	}
	if n := len(agent.logged(unanswered)); n != 1 {
		t.Errorf("kube-nft said %d times that the API does not answer, want once", n)
	}
	s.Must(s.api.Restart(t.Context()))
	returned := time.Now()
	comes := s.createService("comes", 2)
	s.setEndpoints("grows", false, 1, 2)
	s.setEndpoints("grows", true, 1, 2)
	s.deleteService("goes")

	s.answersWithin(patience, s.client, "tcp", comes.at(false), "pod-2")
	t.Logf("the first change arrived %v after the API's return", time.Since(returned).Round(time.Millisecond))
	for _, v6 := range []bool{false, true} {
		s.answers(s.client, "udp", comes.at(v6), "pod-2")
		s.answers(s.client, "udp", grows.at(v6), "pod-1", "pod-2")
		s.answers(s.client, "udp", goes.at(v6))
	}
	stop()
	s.untouched(m, stays)
	agent.await(soon, answersAgain)
}

// allTraffic asks a Service in all ways at once, over new connections and over
// one that stays, until what it returns is called; that checks that all was
// answered.
func (s *site) allTraffic(to service) (stop func()) {
	s.t.Helper()
	old := make(chan error, 1)
	ctx, cancel := context.WithCancel(s.t.Context())
	conn, err := s.client.Dial(ctx, "tcp", to.at(false))
	s.Must(err)
	go func() {
		defer conn.Close()
		for ctx.Err() == nil {
			if _, err := conn.Ask(context.Background()); err != nil {
				old <- err
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		old <- nil
	}()
	stops := []func() netlab.Tally{
		s.traffic(s.client, "tcp", to.at(false)),
		s.traffic(s.client, "udp", to.at(true)),
		s.traffic(s.client, "tcp", netip.AddrPortFrom(nodeAddrs[0], to.nodePort)),
		s.traffic(s.pods[0], "udp", to.at(false)),
		s.traffic(s.pods[0], "tcp", to.at(true)),
	}
	return func() {
		s.t.Helper()
		cancel()
		if err := <-old; err != nil {
			s.t.Errorf("a connection that stays: %v", err)
		}
		for _, stop := range stops {
			if tally := stop(); tally.Failed() > 0 || tally.Answered() == 0 {
				s.t.Errorf("new connections: %v", tally)
			}
		}
	}
}

// untouched checks that since the last look the tables changed, but not for these
// Services.
func (s *site) untouched(m *process.Monitor, services ...service) {
	s.t.Helper()
	var texts []string
	for _, other := range services {
		texts = append(texts, other.v4.String(), other.v6.String(), strconv.Itoa(int(other.nodePort)))
	}
	m.Spared(texts...)
}

// TestDisconnected deletes a Service, and all slices of another, while kube-nft
// cannot hear of it.
func TestDisconnected(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		away func(*site, *program)
		back func(*site)
		list bool // only a list can tell what is gone
	}{
		{
			name: "the connection stalls",
			away: func(s *site, _ *program) { s.stall() },
			back: (*site).mend,
		},
		{
			name: "the connection breaks",
			away: (*site).cut,
			back: (*site).mend,
		},
		{
			name: "the watch is too old",
			away: (*site).cut,
			back: func(s *site) {
				s.Must(s.api.Restart(s.t.Context())) // and knows no history
				s.mend()
			},
			list: true,
		},
		{
			name: "kube-nft restarts",
			away: func(_ *site, agent *program) { agent.end(syscall.SIGTERM) },
			back: func(s *site) { s.runAgent() },
			list: true,
		},
		{
			name: "kube-nft crashes",
			away: func(_ *site, agent *program) { agent.end(syscall.SIGKILL) },
			back: func(s *site) { s.runAgent() },
			list: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.serve()
			s.createNode(nodeAddrs...)
			agent := s.runAgent()
			agent.awaitProgrammed()
			stays, empties, goes := s.createService("stays", 1, 2), s.createService("empties", 1, 2), s.createService("goes", 1)
			s.answers(s.client, "udp", stays.at(true), "pod-1", "pod-2")
			s.answers(s.client, "udp", empties.at(true), "pod-1", "pod-2")
			s.answers(s.client, "udp", goes.at(true), "pod-1")
			stop := s.allTraffic(stays)
			m := s.startMonitor()
			before := s.count("services", request.lists)

			tt.away(s, agent)
			// Neither hides that the other is not known yet.
			s.do(http.MethodDelete, servicesPath+"/goes", nil, nil)
			s.do(http.MethodDelete, slicesPath+"/"+sliceName("empties", false), nil, nil)
			s.do(http.MethodDelete, slicesPath+"/"+sliceName("empties", true), nil, nil)
			if events := m.Events(); len(events) > 0 {
				t.Errorf("the tables changed while kube-nft could not know:\n%s", strings.Join(events, "\n"))
			}
			s.answers(s.client, "udp", goes.at(true), "pod-1")
			tt.back(s)
			returned := time.Now()
			s.answersWithin(patience, s.client, "tcp", goes.at(true))
			s.answersWithin(patience, s.client, "tcp", empties.at(false))
			t.Logf("both deletions arrived %v after the return", time.Since(returned).Round(time.Millisecond))
			s.answers(s.client, "udp", goes.at(false))
			s.answers(s.client, "udp", empties.at(true))
			stop()
			s.untouched(m, stays)
			if tt.list && s.count("services", request.lists) == before {
				t.Error("Services were not listed again")
			}
		})
	}
}
