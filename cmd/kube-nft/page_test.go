// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/controller/health"
	"github.com/kube-nft/kube-nft/controller/view"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
)

// pageWithout is a page whose tables cannot be read.
func pageWithout() (*page, http.Handler) {
	w := newWatcher()
	w.open = func() (*kernel.Conn, error) { return nil, errors.New("no kernel here") }
	p := newPage(w, newJournal(), func() statusObject { return statusObject{} })
	s := newStatus(newRegistry(), &logger{}, config.New())
	s.page = p
	return p, s.handler()
}

func request(h http.Handler, method, target, host string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestPageServes: the page's files and their kinds, under GET alone, each with what
// browsers are to keep to; metrics stay what they were.
func TestPageServes(t *testing.T) {
	_, h := pageWithout()
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/page/page.css": "text/css; charset=utf-8", "/page/page.js": "text/javascript; charset=utf-8",
	} {
		w := request(h, http.MethodGet, path, "127.0.0.1:10249")
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || w.Body.Len() == 0 {
			t.Errorf("%s: %d %s, %d bytes", path, w.Code, w.Header().Get("Content-Type"), w.Body.Len())
		}
		for name, want := range map[string]string{"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff",
			"X-Frame-Options": "DENY", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin"} {
			if got := w.Header().Get(name); !strings.Contains(got, want) {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			if w := request(h, method, path, "localhost"); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	for path, want := range map[string]int{"/page/": 404, "/page/index.html": 404, "/index.html": 404, "/api/v1/": 404, "/metrics": 200, "/healthz": 200} {
		if w := request(h, http.MethodGet, path, "127.0.0.1"); w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

// TestPageEscapes: a name that would be markup is data that no browser takes for a
// page.
func TestPageEscapes(t *testing.T) {
	const name = `<img src=x onerror=alert(1)>`
	var c nft.Contents
	c.Put(nft.Element{Set: nft.NodePorts, Key: nft.Key{Proto: nft.TCP, Port: 1}, Value: nft.Value{Comment: "evil/" + name, Verdict: nft.Chain{Kind: nft.NodePort, N: 1}}})
	v := view.Of(view.Table{Schema: nft.NewSchema(nft.IPv4, nft.Options{}), Contents: c})
	w := httptest.NewRecorder()
	answer(w, servicesObject{Items: []portObject{objectOfPort(v, &v.Ports[0])}})
	var o servicesObject
	if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || o.Items[0].Service != name {
		t.Errorf("%v: %s", err, w.Body)
	}
	if w.Header().Get("Content-Type") != "application/json" || strings.ContainsAny(w.Body.String(), "<>&") {
		t.Errorf("a browser could take it for a page: %v\n%s", w.Header(), w.Body)
	}
}

// TestPageIsText: nothing in the page's program makes markup of what it is answered,
// and its files name nothing elsewhere.
func TestPageIsText(t *testing.T) {
	for _, file := range []string{"index.html", "page.css", "page.js"} {
		body, err := pageFiles.ReadFile("page/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, forbidden := range []string{`innerHTML`, `outerHTML`, `insertAdjacentHTML`, `document\.write`, `eval\(`, `new Function`, `DOMParser`, `https?://`,
			` style=`, ` on[a-z]+=`, `<script>`, `javascript:`, `@import`} {
			if regexp.MustCompile(forbidden).Match(body) {
				t.Errorf("%s holds %s", file, forbidden)
			}
		}
	}
}

// TestPageCounts: the status has what the controller counts, and does not gather other
// metrics for it, among which are some that read tables.
func TestPageCounts(t *testing.T) {
	r := &runner{registry: prometheus.NewPedanticRegistry(), health: health.NewProxy(nil, time.Minute, false, nil)}
	r.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dear", Help: "Costs a dump."}, func() float64 {
		t.Error("all metrics were gathered")
		return 0
	}))
	r.status = newStatus(r.registry, &logger{}, config.New())
	r.addPage()
	defer r.status.page.watch.close()
	r.config.Metrics, r.config.Logger = r.registry, slog.New(slog.DiscardHandler)
	r.config.Options = map[nft.Family]nft.Options{nft.IPv4: {}, nft.IPv6: {}}
	controller.New(r.config, nil)
	o := r.status.page.status()
	if _, ok := o.Drifts["IPv4"]; !ok || len(o.Drifts) != 2 {
		t.Errorf("drifts: %v", o.Drifts)
	}
}

// TestPageErrors: what is asked wrongly is said, and what cannot be read too.
func TestPageErrors(t *testing.T) {
	p, h := pageWithout()
	for path, want := range map[string]struct {
		code int
		word string
	}{
		"/api/v1/services":                        {503, "no kernel here"},
		"/api/v1/status":                          {503, "no kernel here"},
		"/api/v1/services?limit=201":              {400, "0 to 200"},
		"/api/v1/services?limit=-1":               {400, "limit"},
		"/api/v1/services?offset=x":               {400, "offset"},
		"/api/v1/services?unserved=perhaps":       {400, "unserved"},
		"/api/v1/services?sort=age":               {400, "no order"},
		"/api/v1/services?nmespace=a":             {400, "nmespace"},
		"/api/v1/services?namespace=a&namespace=": {400, "comes twice"},
	} {
		w := request(h, http.MethodGet, path, "localhost")
		var o struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || w.Code != want.code || !strings.Contains(o.Error, want.word) {
			t.Errorf("%s: %d %s, want %d and %q", path, w.Code, w.Body, want.code, want.word)
		}
	}
	for range maxLooking {
		p.looking <- struct{}{}
	}
	if w := request(h, http.MethodGet, "/api/v1/status", "localhost"); w.Code != 503 || w.Header().Get("Retry-After") != "1" {
		t.Errorf("one more than can be answered: %d", w.Code)
	}
	if w := request(h, http.MethodGet, "/metrics", "localhost"); w.Code != 200 {
		t.Errorf("metrics meanwhile: %d", w.Code)
	}
}

// TestJournal: the last passes are remembered, the latest first, and attempts that go
// on failing count as one.
func TestJournal(t *testing.T) {
	j := newJournal()
	j.now = func() time.Time { return time.Unix(1000, 0) }
	j.committed(controller.Commit{Services: 1})
	if n := len(j.list()); n != 0 {
		t.Errorf("%d passes that did nothing", n)
	}
	j.committed(controller.Commit{Services: 2, Resync: true})
	j.committed(controller.Commit{Services: 3, Batches: 1, Added: 4, Took: time.Millisecond})
	for range 3 {
		j.failed(errors.New("no room"))
	}
	j.failed(errors.New(strings.Repeat("x", 2*errorLen)))
	got := j.list()
	if len(got) != 4 || len(got[0].Error) != errorLen || got[1].Error != "no room" || got[1].Times != 3 || got[2].Added != 4 || !got[3].Compared {
		t.Errorf("%+v", got)
	}
	for i := range 3 * journalLen {
		j.committed(controller.Commit{Services: i, Batches: 1})
	}
	if got = j.list(); len(got) != journalLen || got[0].Services != 3*journalLen-1 || got[journalLen-1].Services != 2*journalLen {
		t.Errorf("%d passes, from %+v to %+v", len(got), got[0], got[len(got)-1])
	}
}

// TestParseQuery: what is asked is understood.
func TestParseQuery(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/api/v1/services?namespace=a&text=b&unserved=true&sort=rate&offset=50&limit=10", nil)
	q, err := parseQuery(r.URL.Query())
	if got := fmt.Sprintf("%s %s %v %s %d %d", q.filter.Namespace, q.filter.Text, q.filter.Unserved, q.order, q.offset, q.limit); got != "a b true rate 50 10" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}
