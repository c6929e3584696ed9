// SPDX-License-Identifier: Apache-2.0

package main

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kube-nft/kube-nft/controller/view"
)

// page is the status page beside metrics: what the tables hold now and what has
// become of them lately. It answers GET alone and changes nothing. What it shows is
// read when somebody looks, and forgotten when nobody does.
type page struct {
	watch   *watcher
	journal *journal
	status  func() statusObject // all but what is read of the tables
	looking chan struct{}       // bounds who is answered at a time
}

//go:embed page
var pageFiles embed.FS

// maxLooking bounds who is answered at a time, and with it the memory of answers.
const maxLooking = 8

func newPage(w *watcher, j *journal, status func() statusObject) *page {
	return &page{watch: w, journal: j, status: status, looking: make(chan struct{}, maxLooking)}
}

// register adds the page's paths.
func (p *page) register(mux *http.ServeMux) {
	for path, file := range map[string]struct{ name, kind string }{
		"/{$}":           {"page/index.html", "text/html; charset=utf-8"},
		"/page/page.css": {"page/page.css", "text/css; charset=utf-8"},
		"/page/page.js":  {"page/page.js", "text/javascript; charset=utf-8"},
	} {
		body, err := pageFiles.ReadFile(file.name)
		if err != nil {
			panic(err) // it is embedded
		}
		mux.Handle("GET "+path, guarded(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", file.kind)
			_, _ = w.Write(body) // who asked may have gone
		}))
	}
	mux.Handle("GET /api/v1/status", guarded(p.answerStatus))
	mux.Handle("GET /api/v1/services", guarded(p.answerServices))
}

// policy lets a browser load what comes from here and nothing else, whatever a name
// in the tables may contain.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guarded sets what browsers are to keep to. To whom the page is not meant to be shown
// is turned away before, as from all that is served at this address (onlyByName).
func guarded(serve http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		serve(w, r)
	})
}

func (p *page) answerStatus(w http.ResponseWriter, r *http.Request) {
	if !p.enter(w) {
		return
	}
	defer p.leave()
	seen, err := p.watch.look(r.Context())
	if err != nil && seen == nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, p.statusOf(seen, err))
}

func (p *page) answerServices(w http.ResponseWriter, r *http.Request) {
	q, err := parseQuery(r.URL.Query())
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if !p.enter(w) {
		return
	}
	defer p.leave()
	list, err := p.watch.services(r.Context(), q)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	answer(w, list)
}

// enter lets a request in unless there are too many.
func (p *page) enter(w http.ResponseWriter) bool {
	select {
	case p.looking <- struct{}{}:
		return true
	default:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, fmt.Errorf("more than %d requests at a time: ask again in a second", maxLooking))
		return false
	}
}

func (p *page) leave() { <-p.looking }

// refuse writes an error as JSON.
func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	body, _ := json.Marshal(map[string]string{"error": err.Error()}) // strings always can be
	_, _ = w.Write(body)
}

// query is what /api/v1/services is asked.
type query struct {
	filter        view.Filter
	order         string
	offset, limit int
}

// Rows of an answer.
const (
	fewRows  = 50
	mostRows = 200
)

// byRate sorts by new connections per second; only here are there rates.
const byRate = "rate"

// parseQuery reads the parameters, and names one that there is not: what is misspelt
// must not list something else than was asked for.
func parseQuery(v url.Values) (q query, err error) {
	q = query{order: string(view.ByName), limit: fewRows}
	known := []string{"namespace", "text", "unserved", "sort", "offset", "limit"}
	for name, values := range v {
		if !slices.Contains(known, name) || len(values) != 1 {
			return q, fmt.Errorf("parameter %q is unknown or comes twice: there are %s", name, strings.Join(known, ", "))
		}
		switch value := values[0]; name {
		case "namespace":
			q.filter.Namespace = value
		case "text":
			q.filter.Text = value
		case "unserved":
			q.filter.Unserved, err = strconv.ParseBool(value)
		case "sort":
			if q.order = value; value != byRate {
				_, err = view.ParseOrder(value)
			}
		case "offset":
			q.offset, err = parseNumber(value, 1<<31-1)
		case "limit":
			q.limit, err = parseNumber(value, mostRows)
		}
		if err != nil {
			return q, fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return q, nil
}

func parseNumber(s string, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > most {
		return 0, fmt.Errorf("%q is no number from 0 to %d", s, most)
	}
	return n, nil
}
