// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// runAPI runs the source until the test ends and checks that it ends in peace.
func runAPI(t *testing.T, client *Client, node string) (*recorder, *logs) {
	t.Helper()
	log := &logs{}
	s := API(client, APIOptions{NodeName: node, Logger: log.logger()}).(*api)
	s.backoff = wait.Backoff{Duration: 5 * time.Millisecond, Cap: 10 * time.Millisecond, Steps: 2, Factor: 2, Jitter: 1}
	s.optionalBackoff = s.backoff
	sink := newRecorder()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, sink) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end with its context")
		}
		if sink.synced > 1 {
			t.Errorf("synced %d times", sink.synced)
		}
	})
	return sink, log
}

func TestAPIEvents(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t, map[string][]exchange{
		"services": {
			{kind: "list", frames: []string{serviceList("10", service("web", "5"), service("old", "6"))}},
			{kind: "watch", hold: true},
		},
		"endpointslices": {
			{kind: "list", frames: []string{sliceList("10", slice("web-1", "7"))}},
			{kind: "watch", hold: true},
		},
		"nodes": {
			{kind: "list", frames: []string{nodeList("10", "n1")}},
			{kind: "watch", hold: true},
		},
	})
	sink, log := runAPI(t, server.client(), "n1")
	sink.await(t, "synced", "set node n1")
	if diff := cmp.Diff([]string{"service default/old", "service default/web", "slice default/web-1"}, sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if s := sink.service("web"); s.ManagedFields != nil || s.Spec.Selector != nil || s.ResourceVersion != "" {
		t.Errorf("Service is not stripped: %v", s)
	}
	if len(sink.theNode().Status.Images) != 0 {
		t.Error("Node is not stripped")
	}

	server.push("services", event("ADDED", service("new", "11")))
	server.push("services", event("MODIFIED", service("web", "12")))
	server.push("services", bookmark("Service", "v1", "13", false))
	server.push("services", event("DELETED", service("old", "14")))
	server.push("endpointslices", event("MODIFIED", slice("web-1", "15")))
	server.push("endpointslices", event("DELETED", slice("web-1", "16")))
	sink.await(t, "set service default/new", "delete service default/old", "delete slice default/web-1")
	if diff := cmp.Diff([]string{"service default/new", "service default/web"}, sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if lines := log.Lines(); len(lines) > 0 {
		t.Errorf("logged in a normal life:\n%s", strings.Join(lines, "\n"))
	}
	for resource, want := range map[string]string{
		"services":       "fields=spec.clusterIP!=None labels=!service.kubernetes.io/service-proxy-name",
		"endpointslices": "fields= labels=!service.kubernetes.io/headless",
		"nodes":          "fields=metadata.name=n1 labels=",
	} {
		eventually(t, func() error { // of nodes nothing more was said, so that the watch may just begin
			if diff := cmp.Diff([]string{"stream " + want, "list " + want, "watch " + want}, server.asked(resource)); diff != "" {
				return fmt.Errorf("%s: -want +got\n%s", resource, diff)
			}
			return nil
		})
	}
}

// TestAPIRecorded replays what a real API server said, whose life includes a
// refused stream, changes in and out of the selection, a crash, and lost history.
func TestAPIRecorded(t *testing.T) {
	t.Parallel()
	resources := []string{"services", "endpointslices", "nodes"}
	scripts := map[string][]exchange{}
	for _, resource := range resources {
		scripts[resource] = readRecording(t, "testdata/recorded/"+resource+".txt")
	}
	server := newAPIServer(t, scripts)
	sink, log := runAPI(t, server.client(), "node-0")
	// The Service "mover" was given another proxy's label; "foreign" lost it.
	sink.await(t, "synced", "set service default/foreign", "delete service default/mover", "delete service default/late",
		"set slice default/late-1", "delete slice default/web-1", "set node node-0")
	inZone := func() error { // as the node's watch says, which has begun then
		if zone := sink.theNode().Labels[corev1.LabelTopologyZone]; zone != "zone-b" {
			return fmt.Errorf("zone %q", zone)
		}
		return nil
	}
	eventually(t, inZone)
	want := []string{"service default/foreign", "service default/kubernetes", "service default/web", "slice default/late-1"}
	if diff := cmp.Diff(want, sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if s := sink.service("web"); s.Spec.Type != corev1.ServiceTypeNodePort || s.Spec.Ports[0].NodePort == 0 || s.Spec.ClusterIP == "" {
		t.Errorf("web: %v", s.Spec)
	}
	sink.take()
	for _, resource := range resources {
		server.end(resource)
	}
	sink.await(t, "set service default/after", "delete service default/foreign", "set slice default/late-1", "set node node-0")
	want = []string{"service default/after", "service default/kubernetes", "service default/web", "slice default/late-1"}
	if diff := cmp.Diff(want, sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if err := inZone(); err != nil {
		t.Error(err)
	}
	if lines := log.Lines(); len(lines) > 0 {
		t.Errorf("logged:\n%s", strings.Join(lines, "\n"))
	}
}

// TestAPIStream lists by a stream, whose end a bookmark marks. Objects are delivered as
// they come.
func TestAPIStream(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t, map[string][]exchange{
		"services": {{kind: "stream", hold: true, frames: []string{event("ADDED", service("web", "5"))}}},
		"endpointslices": {{kind: "stream", hold: true, frames: []string{
			event("ADDED", slice("web-1", "7")), bookmark("EndpointSlice", "discovery.k8s.io/v1", "10", true)}}},
	})
	sink, _ := runAPI(t, server.client(), "")
	sink.await(t, "set slice default/web-1", "set service default/web")
	server.push("services", bookmark("Service", "v1", "10", true))
	sink.await(t, "synced")
	server.push("services", event("ADDED", service("late", "11")))
	sink.await(t, "set service default/late")
	if told := sink.take(); !(slices.Index(told, "set service default/web") < slices.Index(told, "synced")) ||
		!(slices.Index(told, "synced") < slices.Index(told, "set service default/late")) {
		t.Errorf("order: %v", told)
	}
	if asked := server.asked("nodes"); asked != nil {
		t.Errorf("asked for nodes without a node name: %v", asked)
	}
}

// TestAPIGone loses history, and finds out what went meanwhile.
func TestAPIGone(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t, map[string][]exchange{
		"services": {
			{kind: "list", frames: []string{serviceList("10", service("a", "5"), service("b", "6"))}},
			{kind: "watch", hold: true},
			{kind: "list", frames: []string{serviceList("900", service("b", "6"), service("c", "800"))}},
			{kind: "watch", hold: true},
		},
		"endpointslices": {
			{kind: "list", frames: []string{sliceList("10", slice("a-1", "7"))}},
			{kind: "watch", frames: []string{event("ADDED", slice("a-2", "8"))}, cut: true},
			{kind: "watch", hold: true},
			{kind: "list", frames: []string{sliceList("900", slice("b-1", "7"))}},
			{kind: "watch", hold: true},
		},
	})
	sink, log := runAPI(t, server.client(), "")
	sink.await(t, "synced", "set slice default/a-2")
	sink.take()
	server.push("services", event("ADDED", service("x", "11")))
	server.push("services", gone)
	sink.await(t, "delete service default/a", "delete service default/x", "set service default/c")
	server.push("endpointslices", gone)
	sink.await(t, "set slice default/b-1", "delete slice default/a-1", "delete slice default/a-2")
	if diff := cmp.Diff([]string{"service default/b", "service default/c", "slice default/b-1"}, sink.names()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	told := sink.take()
	if slices.Index(told, "delete service default/a") > slices.Index(told, "set service default/c") {
		t.Errorf("a Service must go before one comes: %v", told)
	}
	if slices.Index(told, "delete slice default/a-1") < slices.Index(told, "set slice default/b-1") {
		t.Errorf("a slice must come before one goes: %v", told)
	}
	if lines := log.Lines("level=WARN"); len(lines) > 0 {
		t.Errorf("warned about lost history:\n%s", strings.Join(lines, "\n"))
	}
}

// TestAPIUnreachable starts without a server, gets one, loses it and gets it back.
func TestAPIUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.2:0") // whose ports no other test takes meanwhile
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	sink, log := runAPI(t, clientFor(t, "http://"+address), "n1")
	log.await(t, "does not answer")
	time.Sleep(100 * time.Millisecond) // many attempts, at a pause of 5 to 20 ms
	for round := 1; round <= 2; round++ {
		if warned := log.Lines("does not answer"); len(warned) != round || !strings.Contains(warned[0], "connection refused") {
			t.Fatalf("round %d: want one warning a round, with the reason:\n%s", round, strings.Join(warned, "\n"))
		}
		server := reopen(t, address, fmt.Sprint("web-", round))
		sink.await(t, fmt.Sprint("set service default/web-", round), "synced")
		eventually(t, func() error {
			if n := len(log.Lines("answers again")); n != round {
				return fmt.Errorf("%d lines that it answers again, want %d", n, round)
			}
			return nil
		})
		server.Listener.Close() // or a watch begins between the next two, and Close waits for it
		server.CloseClientConnections()
		server.Close()
		eventually(t, func() error {
			if n := len(log.Lines("does not answer")); n != round+1 {
				return fmt.Errorf("%d warnings, want %d", n, round+1)
			}
			return nil
		})
	}
	if n := len(log.Lines("there is no Node of this name")); n != 1 {
		t.Errorf("it was said %d times that there is no Node, want once", n)
	}
	if got := sink.names(); len(got) != 1 {
		t.Errorf("what was delivered must stay, and what a list lacks must go: %v", got)
	}
}

// reopen listens at an address again, with one Service and no history.
func reopen(t *testing.T, address, name string) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		q := r.URL.Query()
		switch {
		case q.Get("sendInitialEvents") != "":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, noStreaming)
		case q.Get("watch") != "" && q.Get("resourceVersion") != name:
			fmt.Fprintln(w, gone)
		case q.Get("watch") != "":
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case strings.HasSuffix(r.URL.Path, "/services"):
			fmt.Fprint(w, serviceList(name, service(name, "1")))
		case strings.HasSuffix(r.URL.Path, "/endpointslices"):
			fmt.Fprint(w, sliceList(name))
		case strings.HasSuffix(r.URL.Path, "/servicecidrs"):
			fmt.Fprint(w, cidrList(name))
		default:
			fmt.Fprintf(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":%q},"items":[]}`, name)
		}
	}))
	_ = server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// TestAPIForbidden is not allowed to see slices: it says so once, and never syncs.
func TestAPIForbidden(t *testing.T) {
	t.Parallel()
	refusal := exchange{kind: "list", status: http.StatusForbidden, frames: []string{forbidden}}
	// The stream is allowed, and breaks off: that must not count as recovery.
	begun := exchange{kind: "stream", frames: []string{event("ADDED", slice("half", "1")), gone}}
	server := newAPIServer(t, map[string][]exchange{
		"services":       {{kind: "list", frames: []string{serviceList("10", service("a", "5"))}}, {kind: "watch", hold: true}},
		"endpointslices": {begun, refusal, begun, refusal, begun, refusal, refusal, {kind: "list", frames: []string{sliceList("10")}}, {kind: "watch", hold: true}},
	})
	sink, log := runAPI(t, server.client(), "")
	sink.await(t, "synced")
	warned := log.Lines("level=WARN")
	if len(warned) != 1 || !strings.Contains(warned[0], "resource=endpointslices") || !strings.Contains(warned[0], "is forbidden") {
		t.Errorf("want one warning:\n%s", strings.Join(warned, "\n"))
	}
	log.await(t, "answers again")
}

func TestAPIStops(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := API(clientFor(t, "http://127.0.0.1:1"), APIOptions{}).Run(ctx, newRecorder()); err != nil {
		t.Error(err)
	}
	// With a pause longer than any of real life, while it waits for a server.
	log := &logs{}
	s := API(clientFor(t, "http://127.0.0.1:1"), APIOptions{Logger: log.logger()}).(*api)
	s.backoff = wait.Backoff{Duration: time.Hour, Cap: time.Hour, Steps: 2, Factor: 2}
	s.optionalBackoff = s.backoff
	ctx, cancel = context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, newRecorder()) }()
	log.await(t, "does not answer")
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Run sleeps on after its context ended")
	}
}

func TestStoreRefusesStrangers(t *testing.T) {
	t.Parallel()
	s := &store[*corev1.Service]{strip: StripService}
	for name, err := range map[string]error{
		"add": s.Add(&metav1.Status{}), "delete": s.Delete(1), "replace": s.Replace([]any{"x"}, ""),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestQuiet: what client-go logs is debugging, also what it calls an error, and is not
// there unless somebody debugs.
func TestQuiet(t *testing.T) {
	for level, want := range map[slog.Level]int{slog.LevelInfo: 0, slog.LevelDebug: 2} {
		var text bytes.Buffer
		log := logr.FromSlogHandler(quiet{slog.NewTextHandler(&text, &slog.HandlerOptions{Level: level})})
		log.Info("listing")
		log.Error(errors.New("refused"), "cannot list")
		if got := strings.Count(text.String(), "level=DEBUG"); got != want || strings.Contains(text.String(), "level=ERROR") {
			t.Errorf("at %v: %q", level, &text)
		}
	}
}

// TestAPIStreamAgain lists by a stream a second time: Services that went are told before
// those that came, EndpointSlices after.
func TestAPIStreamAgain(t *testing.T) {
	t.Parallel()
	server := newAPIServer(t, map[string][]exchange{
		"services": {
			{kind: "stream", frames: []string{event("ADDED", service("a", "5")), event("ADDED", service("b", "6")),
				bookmark("Service", "v1", "10", true), gone}},
			{kind: "stream", hold: true, frames: []string{event("ADDED", service("b", "6")), event("ADDED", service("c", "800")),
				bookmark("Service", "v1", "900", true)}},
		},
		"endpointslices": {
			{kind: "stream", frames: []string{event("ADDED", slice("a-1", "7")), bookmark("EndpointSlice", "discovery.k8s.io/v1", "10", true), gone}},
			{kind: "stream", hold: true, frames: []string{event("ADDED", slice("c-1", "800")), bookmark("EndpointSlice", "discovery.k8s.io/v1", "900", true)}},
		},
	})
	sink, _ := runAPI(t, server.client(), "")
	sink.await(t, "synced", "set service default/c", "delete slice default/a-1")
	told := sink.take()
	if before, after := slices.Index(told, "delete service default/a"), slices.Index(told, "set service default/c"); before < 0 || after < before {
		t.Errorf("Services that went come after those that came: %v", told)
	}
	if before, after := slices.Index(told, "set slice default/c-1"), slices.Index(told, "delete slice default/a-1"); before < 0 || after < before {
		t.Errorf("EndpointSlices that went come before those that came: %v", told)
	}
}
