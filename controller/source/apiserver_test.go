// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// exchange is one request and its answer. Frames are sent one by one; then the
// answer ends, unless it is held open, in which case push sends more.
type exchange struct {
	kind   string // "list", "watch", or "stream" for a streamed list
	status int    // 0 = 200
	frames []string
	hold   bool
	cut    bool // break the connection instead of ending the answer
}

// apiServer answers each resource's requests by a script: a list, a watch or a
// streamed list is answered by the next exchange of that kind. What the script
// does not foresee is refused, and held watches end with the test. Without a script
// for them there are no ServiceCIDRs.
type apiServer struct {
	t    *testing.T
	http *httptest.Server

	mu      sync.Mutex
	scripts map[string][]exchange    // resource → exchanges left
	pushed  map[string]chan string   // resource → frames for the held watch
	queries map[string][]string      // resource → what was asked, as "watch fieldSelector=…"
	ends    map[string]chan struct{} // resource → closed to end the held watch
}

func newAPIServer(t *testing.T, scripts map[string][]exchange) *apiServer {
	if scripts["servicecidrs"] == nil {
		scripts["servicecidrs"] = []exchange{{kind: "list", frames: []string{cidrList("10")}}, {kind: "watch", hold: true}}
	}
	s := &apiServer{t: t, scripts: scripts, pushed: map[string]chan string{}, queries: map[string][]string{}, ends: map[string]chan struct{}{}}
	for resource := range scripts {
		s.pushed[resource] = make(chan string)
		s.ends[resource] = make(chan struct{})
	}
	s.http = httptest.NewServer(s)
	t.Cleanup(s.http.Close)
	return s
}

func (s *apiServer) client() *Client {
	return clientFor(s.t, s.http.URL)
}

// binaryClient asks for protobuf.
func (s *apiServer) binaryClient() *Client {
	return clientAsking(s.t, s.http.URL, runtime.ContentTypeProtobuf)
}

func clientFor(t *testing.T, url string) *Client {
	t.Helper()
	return clientAsking(t, url, runtime.ContentTypeJSON)
}

func clientAsking(t *testing.T, url, contentType string) *Client {
	t.Helper()
	client, err := NewClientFor(&rest.Config{Host: url, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: contentType}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// push sends a frame on the watch of resource that is held open.
func (s *apiServer) push(resource, frame string) {
	s.t.Helper()
	select {
	case s.pushed[resource] <- frame:
	case <-s.t.Context().Done():
	}
}

// end ends the watch of resource that is held open, and lets the next one be held.
func (s *apiServer) end(resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ends[resource])
	s.ends[resource] = make(chan struct{})
}

// asked returns the queries for a resource so far.
func (s *apiServer) asked(resource string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.queries[resource])
}

func (s *apiServer) next(resource string, r *http.Request) (exchange, chan struct{}) {
	q := r.URL.Query()
	kind := "list"
	switch {
	case q.Get("sendInitialEvents") == "true":
		kind = "stream"
	case q.Get("watch") == "true":
		kind = "watch"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries[resource] = append(s.queries[resource],
		fmt.Sprintf("%s fields=%s labels=%s", kind, q.Get("fieldSelector"), q.Get("labelSelector")))
	script := s.scripts[resource]
	for i, x := range script {
		if x.kind == kind {
			s.scripts[resource] = slices.Concat(script[:i], script[i+1:])
			return x, s.ends[resource]
		}
	}
	if kind == "stream" {
		return exchange{status: http.StatusUnprocessableEntity, frames: []string{noStreaming}}, nil
	}
	return exchange{status: http.StatusServiceUnavailable, frames: []string{unavailable}}, nil
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource := path.Base(r.URL.Path)
	x, end := s.next(resource, r)
	write := func(frame string) { fmt.Fprintln(w, frame) }
	w.Header().Set("Content-Type", "application/json")
	if x.status != 0 {
		w.WriteHeader(x.status)
	} else if strings.HasPrefix(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		write = func(frame string) { _, _ = w.Write(s.binary(x.kind, frame)) } // the test is told by what does not come
	}
	for _, f := range x.frames {
		write(f)
	}
	flush := w.(http.Flusher).Flush
	flush()
	for x.hold {
		select {
		case f := <-s.pushed[resource]:
			write(f)
			flush()
		case <-end:
			x.hold = false
		case <-r.Context().Done():
			return
		case <-s.t.Context().Done():
			return
		}
	}
	if x.cut {
		if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
			_ = conn.(*net.TCPConn).SetLinger(0)
			_ = conn.Close()
		}
	}
}

// binary is a frame in protobuf.
func (s *apiServer) binary(kind, frame string) []byte {
	encoded := func(text []byte) []byte {
		o, gvk, err := serializer.NewCodecFactory(known).UniversalDeserializer().Decode(text, nil, nil)
		if err != nil {
			s.t.Error(err)
			return nil
		}
		return inProtobuf(s.t, *gvk, o)
	}
	if kind == "list" {
		return encoded([]byte(frame))
	}
	var e metav1.WatchEvent
	if err := json.Unmarshal([]byte(frame), &e); err != nil {
		s.t.Error(err)
	}
	return eventFrame(s.t, watch.EventType(e.Type), encoded(e.Object.Raw))
}

// Answers of a kube-apiserver.
const (
	noStreaming = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled","reason":"Invalid","code":422}`
	unavailable = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"apiserver not ready","reason":"ServiceUnavailable","code":503}`
	forbidden   = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:kube-system:kube-nft\" cannot list resource","reason":"Forbidden","code":403}`
	gone        = `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 12 (900)","reason":"Expired","code":410}}`
)

func service(name, rv string) string {
	return fmt.Sprintf(`{"kind":"Service","apiVersion":"v1","metadata":{"name":%q,"namespace":"default","resourceVersion":%q,"managedFields":[{"manager":"x"}]},"spec":{"clusterIP":"10.0.0.1","selector":{"a":"b"},"ports":[{"port":80,"targetPort":8080,"protocol":"TCP"}]}}`, name, rv)
}

func slice(name, rv string) string {
	return fmt.Sprintf(`{"kind":"EndpointSlice","apiVersion":"discovery.k8s.io/v1","metadata":{"name":%q,"namespace":"default","resourceVersion":%q,"labels":{"kubernetes.io/service-name":"web","x":"y"}},"addressType":"IPv4","endpoints":[{"addresses":["10.1.0.1"],"targetRef":{"kind":"Pod","name":"p"}}],"ports":[{"name":"","port":8080,"protocol":"TCP"}]}`, name, rv)
}

func event(kind, object string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object)
}

func bookmark(kind, apiVersion, rv string, initial bool) string {
	annotations := ""
	if initial {
		annotations = `,"annotations":{"k8s.io/initial-events-end":"true"}`
	}
	return event("BOOKMARK", fmt.Sprintf(`{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":%q%s},"spec":{}}`, kind, apiVersion, rv, annotations))
}

func serviceList(rv string, items ...string) string {
	return fmt.Sprintf(`{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":%q},"items":[%s]}`, rv, strings.Join(items, ","))
}

func sliceList(rv string, items ...string) string {
	return fmt.Sprintf(`{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":%q},"items":[%s]}`, rv, strings.Join(items, ","))
}

func nodeList(rv, name string) string {
	return fmt.Sprintf(`{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":%q},"items":[{"metadata":{"name":%q,"resourceVersion":"3"},"status":{"images":[{"names":["x"]}]}}]}`, rv, name)
}

func cidr(name, rv string, cidrs ...string) string {
	return fmt.Sprintf(`{"kind":"ServiceCIDR","apiVersion":"networking.k8s.io/v1","metadata":{"name":%q,"resourceVersion":%q,"finalizers":["x"]},"spec":{"cidrs":["%s"]},"status":{"conditions":[{"type":"Ready","status":"True"}]}}`, name, rv, strings.Join(cidrs, `","`))
}

func cidrList(rv string, items ...string) string {
	return fmt.Sprintf(`{"kind":"ServiceCIDRList","apiVersion":"networking.k8s.io/v1","metadata":{"resourceVersion":%q},"items":[%s]}`, rv, strings.Join(items, ","))
}

// readRecording returns the exchanges that a file in testdata holds: a line
// "> list" or the like for each request, and its answer's frames below.
func readRecording(t *testing.T, name string) []exchange {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var script []exchange
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "> "):
			x := exchange{}
			if _, err := fmt.Sscanf(line, "> %s %d", &x.kind, &x.status); err != nil {
				t.Fatalf("%s: %q: %v", name, line, err)
			}
			x.hold = x.kind != "list" && x.status == http.StatusOK
			script = append(script, x)
		default:
			script[len(script)-1].frames = append(script[len(script)-1].frames, line)
		}
	}
	return script
}
