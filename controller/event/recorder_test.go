// SPDX-License-Identifier: Apache-2.0

package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/controller/source"
)

// server is an API that keeps events, and fails as told.
type server struct {
	mu     sync.Mutex                // for the race detector, which takes no order from time
	events map[string]eventsv1.Event // by path
	fail   []func(*http.Request) (*http.Response, error)
	asked  []string // methods
}

// RoundTrip implements http.RoundTripper.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method)
	if len(s.fail) > 0 {
		fail := s.fail[0]
		s.fail = s.fail[1:]
		return fail(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	path := r.URL.Path
	var e eventsv1.Event
	if r.Method == http.MethodPatch {
		e = s.events[path]
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, err
	}
	if r.Method == http.MethodPost {
		path += "/" + e.Name
		if _, exists := s.events[path]; exists {
			return status(http.StatusConflict, metav1.StatusReasonAlreadyExists, "")(r)
		}
	}
	s.events[path] = e
	return answer(r, http.StatusOK, e)
}

// settled returns the events once nothing is under way.
func (s *server) settled() map[string]eventsv1.Event {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.events)
}

// requests returns the methods of all requests so far.
func (s *server) requests() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *server) expire(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.events, path)
}

func answer(r *http.Request, code int, v any) (*http.Response, error) {
	text, err := json.Marshal(v)
	return &http.Response{
		StatusCode: code, Request: r, Body: io.NopCloser(bytes.NewReader(text)),
		Header: http.Header{"Content-Type": []string{"application/json"}},
	}, err
}

func status(code int, reason metav1.StatusReason, cause metav1.CauseType) func(*http.Request) (*http.Response, error) {
	s := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reason, Message: "no, because " + string(reason),
	}
	if cause != "" {
		s.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: cause}}}
	}
	return func(r *http.Request) (*http.Response, error) { return answer(r, code, s) }
}

func unreachable(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") }

// recording runs a test with a Recorder in a bubble of its own time.
func recording(t *testing.T, f func(t *testing.T, r *Recorder, s *server, log *bytes.Buffer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{events: make(map[string]eventsv1.Event)}
		client, err := source.NewClientFor(&rest.Config{Host: "http://api", Transport: s, QPS: -1,
			ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		r := New(client.Events(), "node-0", slog.New(slog.NewTextHandler(&log, nil)))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.Run(ctx); close(done) }()
		f(t, r, s, &log)
		cancel()
		<-done
	})
}

func service(name string) *model.Service {
	return &model.Service{Name: types.NamespacedName{Namespace: "shop", Name: name}, UID: types.UID("uid-of-" + name)}
}

// TestEvent: what is said is in one event, on the right Service.
func TestEvent(t *testing.T) {
	recording(t, func(t *testing.T, r *Recorder, s *server, _ *bytes.Buffer) {
		start := time.Now()
		r.Warn(service("web"), "Reason", "here", "note")
		var got eventsv1.Event
		path := ""
		for path, got = range s.settled() {
		}
		want := eventsv1.Event{
			TypeMeta:            metav1.TypeMeta{Kind: "Event", APIVersion: "events.k8s.io/v1"},
			ObjectMeta:          metav1.ObjectMeta{Namespace: "shop", Name: got.Name},
			EventTime:           metav1.NewMicroTime(start),
			ReportingController: "kube-nft", ReportingInstance: "node-0", Action: "Programming", Reason: "Reason",
			Regarding: corev1.ObjectReference{Kind: "Service", APIVersion: "v1", Namespace: "shop", Name: "web", UID: "uid-of-web"},
			Note:      "note", Type: "Warning",
		}
		if d := cmp.Diff(want, got); d != "" || len(s.settled()) != 1 {
			t.Errorf("%d events (-want +got):\n%s", len(s.settled()), d)
		}
		if want := "/apis/events.k8s.io/v1/namespaces/shop/events/web."; !strings.HasPrefix(path, want) {
			t.Errorf("at %s, want %s…", path, want)
		}
	})
}

// TestRepeated: the same is one event, whoever says it and however often.
func TestRepeated(t *testing.T) {
	recording(t, func(t *testing.T, r *Recorder, s *server, _ *bytes.Buffer) {
		other := New(r.client, "node-1", r.log)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go other.Run(ctx)
		say := func(name string, want ...string) {
			t.Helper()
			before := len(s.requests())
			r.Warn(service("web"), "Reason", "here", "note")
			if got := s.requests()[before:]; !slices.Equal(got, want) {
				t.Errorf("%s: requests %q, want %q", name, got, want)
			}
		}
		say("first", "POST")
		say("at once again")
		other.Warn(service("web"), "Reason", "here", "note")
		synctest.Wait()
		time.Sleep(quiet)
		say("later", "POST", "PATCH")
		if n := len(s.settled()); n != 1 {
			t.Errorf("%d events, want one", n)
		}
		for path, e := range s.settled() {
			if e.Series == nil || e.Series.Count != 2 || !e.Series.LastObservedTime.Time.Equal(time.Now()) {
				t.Errorf("series %+v", e.Series)
			}
			s.expire(path)
		}
		time.Sleep(quiet)
		say("when it has expired", "POST")
		for _, w := range [][2]string{{"Reason", "there"}, {"Other", "here"}} {
			r.Warn(service("web"), w[0], w[1], "note")
		}
		r.Warn(service("db"), "Reason", "here", "note")
		if n := len(s.settled()); n != 4 {
			t.Errorf("%d events, want 4: what differs is not the same", n)
		}
	})
}

// TestRate: whatever happens, the API hears little of it, and nobody waits.
func TestRate(t *testing.T) {
	recording(t, func(t *testing.T, r *Recorder, s *server, _ *bytes.Buffer) {
		for i := range 10_000 {
			r.Warn(service(fmt.Sprint("s", i)), "Reason", "here", "note")
		}
		if n := len(s.settled()); n != burst {
			t.Errorf("%d events at once, want %d", n, burst)
		}
		time.Sleep(time.Minute)
		if n := len(s.settled()); n != burst+12 {
			t.Errorf("%d events after a minute, want %d", n, burst+12)
		}
		time.Sleep(24 * time.Hour)
		if n := len(s.settled()); n > maxQueued+burst+1 {
			t.Errorf("%d events, want no more than were queued", n)
		}
	})
}

// TestRefused: what the API answers decides whether it is asked again, and what is
// logged of it.
func TestRefused(t *testing.T) {
	forbidden := status(http.StatusForbidden, metav1.StatusReasonForbidden, "")
	type failures = []func(*http.Request) (*http.Response, error)
	cases := []struct {
		name  string
		fail  failures
		asked int
		made  bool
		lines int
	}{
		{"unreachable", failures{unreachable, unreachable}, 3, true, 0},
		{"busy", failures{status(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "")}, 2, true, 0},
		{"for good", slices.Repeat(failures{unreachable}, 100), 1 + retries, false, 0},
		{"invalid", failures{status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, "")}, 1, false, 0},
		{"forbidden", failures{forbidden}, 1, false, 1},
		{"namespace goes", failures{status(http.StatusForbidden, metav1.StatusReasonForbidden, corev1.NamespaceTerminatingCause)}, 1, false, 0},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			recording(t, func(t *testing.T, r *Recorder, s *server, log *bytes.Buffer) {
				s.fail = tc.fail
				r.Warn(service("web"), "Reason", "here", "note")
				time.Sleep(time.Hour)
				asked, events := len(s.requests()), s.settled()
				if asked != tc.asked || (len(events) == 1) != tc.made || strings.Count(log.String(), "\n") != tc.lines {
					t.Errorf("%d requests, events %v, logged %q", asked, events, log)
				}
			})
		})
	}
	recording(t, func(t *testing.T, r *Recorder, s *server, log *bytes.Buffer) {
		s.fail = failures{forbidden, forbidden}
		for range 3 { // it is tried again at once, since nobody has heard of it
			r.Warn(service("web"), "Reason", "here", "note")
			synctest.Wait()
		}
		lines := strings.SplitAfter(log.String(), "\n")
		if len(s.settled()) != 1 || len(lines) != 3 || !strings.Contains(lines[0], "allow this user to create and patch events.events.k8s.io") ||
			!strings.Contains(lines[1], "takes events now") {
			t.Errorf("events %v, logged %q", s.settled(), lines)
		}
	})
}

// TestNode: what is said of the node is found where the kubelet's events are, in
// kube-proxy's words; a start is said each time, a trouble once.
func TestNode(t *testing.T) {
	recording(t, func(t *testing.T, r *Recorder, s *server, _ *bytes.Buffer) {
		for range 2 {
			r.Node(corev1.EventTypeNormal, "Starting", "")
			r.Node(corev1.EventTypeWarning, "FailedToStartMetricServer", "address in use")
			time.Sleep(time.Second)
		}
		got := make(map[string]int)
		for path, e := range s.settled() {
			if !strings.HasPrefix(path, "/apis/events.k8s.io/v1/namespaces/default/events/node-0.") {
				t.Errorf("event at %s", path)
			}
			if e.Regarding.Kind != "Node" || e.Regarding.Name != "node-0" || e.Regarding.UID != "node-0" || e.Regarding.Namespace != "" {
				t.Errorf("regarding %+v", e.Regarding)
			}
			got[e.Type+" "+e.Reason+" "+e.Note]++
		}
		want := map[string]int{"Normal Starting ": 2, "Warning FailedToStartMetricServer address in use": 1}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
	})
}

// TestLastWords: events are said by many while the process ends, and whoever waits for
// them to be sent does not wait for ever.
func TestLastWords(t *testing.T) {
	for range 200 {
		r := New(nil, "node-0", slog.New(slog.DiscardHandler))
		for r.limit.TryAccept() { // nothing is sent any more
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { r.Run(ctx) })
		wg.Go(func() { r.Node(corev1.EventTypeNormal, "Starting", "") })
		wg.Go(cancel)
		wg.Wait()
		r.Drain(time.Microsecond)
	}
}
