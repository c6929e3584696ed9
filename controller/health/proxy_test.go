// SPDX-License-Identifier: Apache-2.0

package health

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/controller/model"
)

var both = []model.Family{model.IPv4, model.IPv6}

// TestProxy: what is answered at each path while things happen (B3).
func TestProxy(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	counted := make(map[string]int)
	p := NewProxy(both, time.Minute, true, func(path string, code int) { counted[fmt.Sprint(path, " ", code)]++ })
	p.now = func() time.Time { return now }
	h := p.Handler()
	for _, step := range []struct {
		name                   string
		do                     func()
		healthz, livez, readyz int
	}{
		{"at start", func() {}, 503, 200, 503},
		{"there is a node", func() { p.SetNode(true, false) }, 200, 200, 503},
		{"a first pass that takes its time", func() { p.Begun(); now = now.Add(59 * time.Second) }, 200, 200, 503},
		{"for too long", func() { p.Begun(); now = now.Add(time.Second) }, 503, 503, 503},
		{"done", func() { p.Updated() }, 200, 200, 200},
		{"nothing to do for a year", func() { now = now.Add(365 * 24 * time.Hour) }, 200, 200, 200},
		{"a pass fails", func() { p.Begun() }, 200, 200, 200},
		{"and the next", func() { now = now.Add(30 * time.Second); p.Begun() }, 200, 200, 200},
		{"and the next one", func() { now = now.Add(30 * time.Second); p.Begun() }, 503, 503, 503},
		{"more patience", func() { p.SetTimeout(2 * time.Minute) }, 200, 200, 200},
		{"better", func() { p.Updated() }, 200, 200, 200},
		{"the node is leaving", func() { p.SetNode(true, true) }, 503, 200, 200},
		{"it stays", func() { p.SetNode(true, false) }, 200, 200, 200},
		{"its object is gone", func() { p.SetNode(false, false) }, 503, 200, 200},
	} {
		step.do()
		for path, want := range map[string]int{"/healthz": step.healthz, "/livez": step.livez, "/readyz": step.readyz} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want {
				t.Errorf("%s: %s: %d, want %d: %s", step.name, path, w.Code, want, w.Body)
			}
		}
	}
	if counted["/healthz 503"] != 5 || counted["/livez 200"] != 12 {
		t.Errorf("counted %v", counted)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("/: %d", w.Code)
	}
}

// TestProxyWords: the answer is kube-proxy's to the letter.
func TestProxyWords(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := NewProxy(both, time.Minute, true, nil)
	p.now = func() time.Time { return now }
	p.SetNode(true, true)
	p.Updated()
	now = now.Add(time.Hour)
	for path, want := range map[string]string{
		"/healthz": `{"lastUpdated":"2026-01-01T00:00:00Z","currentTime":"2026-01-01T01:00:00Z","nodeEligible":false,"healthy":true,` +
			`"status":{"IPv4":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":true}}}`,
		"/livez": `{"lastUpdated":"2026-01-01T01:00:00Z","currentTime":"2026-01-01T01:00:00Z","healthy":true,` +
			`"status":{"IPv4":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":true},"IPv6":{"lastUpdated":"2026-01-01T00:00:00Z","healthy":true}}}`,
	} {
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if d := cmp.Diff(want, w.Body.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
		if got := w.Header().Get("Content-Type") + " " + w.Header().Get("X-Content-Type-Options"); got != "application/json nosniff" {
			t.Errorf("%s: headers %q", path, got)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %s", path, w.Body)
		}
	}
}

// TestProxyWithoutCluster: where nobody keeps node objects, none is missed.
func TestProxyWithoutCluster(t *testing.T) {
	p := NewProxy(both[:1], time.Minute, false, nil)
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	if w.Code != http.StatusOK {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
}
