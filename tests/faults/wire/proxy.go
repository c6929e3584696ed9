// SPDX-License-Identifier: Apache-2.0

// Package wire stands between a client of the Kubernetes API and a real API server,
// and makes answers worse: late, twice, out of order, cut off, garbled, refused, out of
// date. It knows lists and frames of a watch in protobuf, which is what kube-nft asks for,
// and otherwise passes on what comes.
package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// Proxy is an API server as a client sees it. Its methods may be called from any
// goroutine.
type Proxy struct {
	Kubeconfig string // a copy of the user's, for this server

	target    *url.URL
	transport http.RoundTripper
	server    *httptest.Server
	certs     certificates

	mu       sync.Mutex
	fault    Fault
	watches  map[*stream]struct{}
	recorded map[string]*List // the first of a resource
	hits     atomic.Int64
}

// Start serves in a namespace what the cluster serves, to a user by a kubeconfig.
func Start(tb testing.TB, n *netlab.Namespace, api *cluster.Cluster, kubeconfig string) *Proxy {
	tb.Helper()
	p := &Proxy{
		Kubeconfig: filepath.Join(tb.TempDir(), "kubeconfig"),
		watches:    make(map[*stream]struct{}), recorded: make(map[string]*List),
		transport: api.ClientVia("", n.DialContext).Transport, // with the token that comes in
	}
	var err error
	if p.target, err = url.Parse(api.URL); err != nil {
		tb.Fatal(err)
	}
	p.server = httptest.NewUnstartedServer(p)
	p.server.EnableHTTP2 = true
	p.certs.shown = func() { p.hits.Add(1) }
	p.server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients go without a word
	if p.server.TLS, err = p.certs.make(); err != nil {
		tb.Fatal(err)
	}
	err = errors.Join(p.server.Listener.Close(), n.Do(func() (err error) {
		p.server.Listener, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}))
	if err != nil {
		tb.Fatal(err)
	}
	p.server.StartTLS()
	tb.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	ca := filepath.Join(tb.TempDir(), "ca.crt")
	config, err := os.ReadFile(kubeconfig)
	err = errors.Join(err, os.WriteFile(ca, p.certs.trusted, 0o644),
		os.WriteFile(p.Kubeconfig, []byte(strings.NewReplacer(api.URL, p.server.URL, api.CAFile, ca).Replace(string(config))), 0o600))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// Set has a fault from now on, on watches that are open too. The zero value is none.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	p.certs.expired.Store(f.Expired)
}

func (p *Proxy) now() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

// Hits counts answers, or frames of them, that a fault has changed.
func (p *Proxy) Hits() int { return int(p.hits.Load()) }

// Cut ends all watches in the middle, and closes all connections. It returns how many
// watches there were.
func (p *Proxy) Cut() (watches int) {
	p.mu.Lock()
	for w := range p.watches {
		w.cancel()
	}
	watches = len(p.watches)
	p.mu.Unlock()
	p.server.CloseClientConnections()
	return watches
}

// Watched reports whether there are watches of all these that are older than that.
func (p *Proxy) Watched(than time.Duration, resources ...string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := make(map[string]bool)
	for w := range p.watches {
		if time.Since(w.began) > than {
			old[w.question.Resource] = true
		}
	}
	return !slices.ContainsFunc(resources, func(r string) bool { return !old[r] })
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := Question{Request: r, Resource: resource(r.URL.Path), Watch: r.URL.Query().Get("watch") != ""}
	q.List = !q.Watch && r.Method == http.MethodGet
	if f := p.now(); f.Answer != nil && f.Answer(w, q, p.recordedOf(q.Resource)) {
		p.hits.Add(1)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	answer, err := p.transport.RoundTrip(p.forward(ctx, q))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	maps.Copy(w.Header(), answer.Header)
	w.Header().Del("Content-Length")
	w.WriteHeader(answer.StatusCode)
	if q.List && answer.StatusCode == http.StatusOK {
		p.list(w, q, answer.Body)
		return
	}
	if !q.Watch || answer.StatusCode != http.StatusOK {
		_, _ = io.Copy(w, answer.Body) // whoever has gone will not complain
		return
	}
	s := &stream{proxy: p, question: q, to: w, cancel: cancel, began: time.Now()}
	p.mu.Lock()
	p.watches[s] = struct{}{}
	p.mu.Unlock()
	defer s.end()
	if err := s.pass(answer.Body); err != nil {
		panic(http.ErrAbortHandler) // not an end, but a break
	}
}

// forward is a request as it goes on to the server.
func (p *Proxy) forward(ctx context.Context, q Question) *http.Request {
	out := q.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = p.target.Scheme, p.target.Host, "", ""
	if f := p.now(); f.WatchFor > 0 && q.Watch {
		query := out.URL.Query()
		query.Set("timeoutSeconds", strconv.Itoa(int(f.WatchFor.Seconds())))
		out.URL.RawQuery = query.Encode()
	}
	return out
}

func resource(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// stream is a watch on its way. One goroutine passes it on; a fault may write to it
// from another one.
type stream struct {
	proxy    *Proxy
	question Question
	cancel   context.CancelFunc
	began    time.Time
	hangs    bool // says nothing more, and does not end before the server ends it

	mu    sync.Mutex
	to    http.ResponseWriter
	ended bool
}

// end forgets the stream. Nothing may be written when its handler has returned.
func (s *stream) end() {
	s.proxy.mu.Lock()
	delete(s.proxy.watches, s)
	s.proxy.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
}

// pass passes frames on until the server ends them or a fault does. A frame is its
// length in four bytes, and as many.
func (s *stream) pass(from io.Reader) error {
	_ = http.NewResponseController(s.to).Flush() // headers are an answer, too
	for {
		var length [4]byte
		if _, err := io.ReadFull(from, length[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		frame := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(from, frame); err != nil {
			return err
		}
		if s.hangs {
			continue
		}
		f := s.proxy.now()
		if f.Frame == nil {
			if err := s.write(frame); err != nil {
				return err
			}
			continue
		}
		changed, err := f.Frame(Frame{Question: s.question, Data: frame}, s.write)
		if changed {
			s.proxy.hits.Add(1)
		}
		if s.hangs = errors.Is(err, ErrHangs); err != nil && !s.hangs {
			return err
		}
	}
}

// write sends a frame to the client.
func (s *stream) write(frame []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return net.ErrClosed
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(frame)))
	if _, err := s.to.Write(append(data, frame...)); err != nil {
		return err
	}
	return http.NewResponseController(s.to).Flush()
}
