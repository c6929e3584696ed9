// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/kube-nft/kube-nft/tests/process"
)

// TestOtherProxy gives a Service to another proxy, and takes it back.
func TestOtherProxy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	s.runAgent().awaitProgrammed()
	web := s.createService("web", 1)
	const label = "service.kubernetes.io/service-proxy-name"
	for range 2 {
		s.answers(s.client, "tcp", web.at(false), "pod-1")
		s.answers(s.client, "udp", web.at(true), "pod-1")
		s.label("web", label, "another")
		s.answers(s.client, "tcp", web.at(false))
		s.answers(s.client, "udp", web.at(true))
		s.label("web", label, nil)
	}
	s.answers(s.client, "tcp", web.at(false), "pod-1")
}

// TestHeadless checks that what is headless is not asked for and changes nothing.
func TestHeadless(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	agent := s.runAgent()
	agent.awaitProgrammed()
	m := s.startMonitor()
	before := len(agent.logged("committed"))

	headless := newService("headless")
	headless.Spec.Type, headless.Spec.ClusterIP = corev1.ServiceTypeClusterIP, corev1.ClusterIPNone
	s.do(http.MethodPost, servicesPath, headless, nil)
	for _, v6 := range []bool{false, true} {
		slice := newSlice("headless", v6, 1, 2)
		slice.Labels[corev1.IsHeadlessService] = ""
		s.do(http.MethodPost, slicesPath, slice, nil)
		s.setEndpoints("headless", v6, 2)
	}
	if events := m.Events(); len(events) > 0 {
		t.Errorf("a headless Service changed the tables:\n%s", strings.Join(events, "\n"))
	}
	// One that comes later is there: so the headless one has not merely not come yet.
	web := s.createService("web", 1)
	s.answers(s.client, "tcp", web.at(true), "pod-1")
	for _, event := range m.Events() {
		if strings.Contains(event, podAddr(2, false).String()) || strings.Contains(event, podAddr(2, true).String()) {
			t.Errorf("an endpoint of the headless Service is in the tables: %s", event)
		}
	}
	if got := len(agent.logged("committed")) - before; got > 3 {
		t.Errorf("%d commits, want at most 3: one Service and two slices", got)
	}
	s.checkSelectors()
}

// checkSelectors checks that the server was asked to leave out what is headless
// or another proxy's.
func (s *site) checkSelectors() {
	s.t.Helper()
	want := map[string][2]string{
		"services":       {"spec.clusterIP!=None", "!service.kubernetes.io/service-proxy-name"},
		"endpointslices": {"", "!service.kubernetes.io/headless"},
		"nodes":          {"metadata.name=" + nodeName, ""},
		"servicecidrs":   {"", ""},
	}
	for _, r := range s.requests() {
		if got := [2]string{r.query.Get("fieldSelector"), r.query.Get("labelSelector")}; got != want[r.resource] {
			s.t.Errorf("request to %s %s: selectors are %q, want %q", r.verb, r.resource, got, want[r.resource])
		}
		if r.code != http.StatusOK && !(r.resource == "events" && r.code == http.StatusCreated) {
			s.t.Errorf("request to %s %s: status is %d", r.verb, r.resource, r.code)
		}
	}
}

// TestSync checks that nothing is written while it is not known what: without the
// endpoints every Service would refuse its clients (A2.11).
func TestSync(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, first, second string }{
		{"Services first", "services", "endpointslices"},
		{"EndpointSlices first", "endpointslices", "services"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newBareSite(t)
			s.serve()
			s.allow(tt.first)
			web := s.createService("web", 1, 2)
			agent := s.runAgent()
			forbidden := func(r request) bool { return r.code == http.StatusForbidden }
			s.Eventually(soon, func() error {
				if s.count(tt.first, request.lists) == 0 || s.count(tt.second, forbidden) < 2 {
					return fmt.Errorf("%s have not been delivered, or %s not been asked for twice", tt.first, tt.second)
				}
				return nil
			})
			agent.await(soon, refused)
			if tables := s.Run(s.node, "nft", "list", "tables"); tables != "" {
				t.Errorf("tables are there before %s are known:\n%s", tt.second, tables)
			}
			s.grant(tt.second)
			granted := time.Now()
			agent.await(patience, "everything is programmed")
			t.Logf("programmed %v after the permission", time.Since(granted).Round(time.Millisecond))
			s.answers(s.client, "tcp", web.at(false), "pod-1", "pod-2")
			s.answers(s.client, "udp", web.at(true), "pod-1", "pod-2")
			agent.await(soon, answersAgain)
		})
	}
}

// What kube-nft's log says of the API.
const (
	refused      = "Kubernetes API refuses a request"
	unanswered   = "Kubernetes API does not answer"
	answersAgain = "Kubernetes API answers again"
)

// TestWire puts a proxy between kube-nft and the API, because the server tells
// nobody in which encoding it was asked: all of it must be protobuf, and there be no
// more than a list and a watch of a resource.
func TestWire(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.serve()
	s.createNode(nodeAddrs...)
	web := s.createService("web", 1)
	tap := s.newTap()
	agent := s.start(process.KubeNFT(), "run", "--kubeconfig", tap.kubeconfig,
		"--hostname-override", nodeName, "--conntrack-max-per-core", "0", "--logging-format", "json", "--v", "2")
	agent.awaitProgrammed()
	s.answers(s.client, "tcp", web.at(false), "pod-1")
	s.setEndpoints("web", false, 2)
	s.answers(s.client, "tcp", web.at(false), "pod-2")

	const protobuf = "application/vnd.kubernetes.protobuf"
	var want []string
	for _, path := range []string{"/api/v1/nodes", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices",
		"/apis/networking.k8s.io/v1/servicecidrs"} {
		want = append(want,
			fmt.Sprintf("%s watch= accept=%s answer=200 %s agent=kube-nft", path, protobuf, protobuf),
			fmt.Sprintf("%s watch=true accept=%s answer=200 %s;stream=watch agent=kube-nft", path, protobuf, protobuf))
	}
	slices.Sort(want)
	s.Eventually(soon, func() error { // nothing waits for the ServiceCIDRs
		if diff := cmp.Diff(want, tap.asked()); diff != "" {
			return fmt.Errorf("-want +asked\n%s", diff)
		}
		return nil
	})
}

// tap is a proxy in the node's namespace that remembers what passes.
type tap struct {
	kubeconfig string

	mu   sync.Mutex
	seen []string // a line each
}

// asked are what has passed so far, sorted, but for events: that it has begun kube-nft
// says once, in an event on its Node.
func (t *tap) asked() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Clone(t.seen)
	slices.Sort(all)
	return slices.DeleteFunc(all, func(line string) bool { return strings.HasPrefix(line, "/apis/events.k8s.io/") })
}

func (s *site) newTap() *tap {
	s.t.Helper()
	tap := &tap{kubeconfig: filepath.Join(s.t.TempDir(), "kubeconfig")}
	target, err := url.Parse(s.api.URL)
	s.Must(err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.FlushInterval = -1                                            // a watch is told at once
	proxy.ErrorLog = log.New(io.Discard, "", 0)                         // watches end with the test
	proxy.Transport = s.api.ClientVia("", s.node.DialContext).Transport // with the token that comes in
	proxy.ModifyResponse = tap.note

	server := httptest.NewUnstartedServer(proxy)
	server.EnableHTTP2 = true
	s.Must(server.Listener.Close(), s.node.Do(func() (err error) {
		server.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	server.StartTLS()
	s.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	ca := filepath.Join(s.t.TempDir(), "ca.crt")
	config, err := os.ReadFile(s.api.Kubeconfig(user.Name))
	s.Must(err,
		os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644),
		os.WriteFile(tap.kubeconfig, []byte(strings.NewReplacer(s.api.URL, server.URL, s.api.CAFile, ca).Replace(string(config))), 0o600))
	return tap
}

func (t *tap) note(answer *http.Response) error {
	question := answer.Request
	accept, _, _ := strings.Cut(question.Header.Get("Accept"), ",")
	agent, _, _ := strings.Cut(question.UserAgent(), "/")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = append(t.seen, fmt.Sprintf("%s watch=%s accept=%s answer=%d %s agent=%s", question.URL.Path,
		question.URL.Query().Get("watch"), accept, answer.StatusCode, answer.Header.Get("Content-Type"), agent))
	return nil
}
