// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/controller/source"
)

// newRegistry returns a registry of the metrics that every program has, and every
// one that talks to the API server.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kube_nft_build_info",
		Help: "What was built, and with which Go; always 1.",
	}, []string{"version", "goversion"})
	ours, goVersion, _ := strings.Cut(version(), " ")
	build.WithLabelValues(ours, goVersion).Set(1)
	r.MustRegister(build)
	source.MeasureRequests(r)
	return r
}

// maxScrapes bounds what readers cost: scrapes are few, small and quick.
const maxScrapes = 4

// countProbes returns what is to be told of answers at /healthz and /livez, so that
// they show in a registry under kube-proxy's names.
func countProbes(r prometheus.Registerer) func(path string, code int) {
	counters := make(map[string]*prometheus.CounterVec)
	for _, name := range []string{"healthz", "livez"} {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubeproxy_proxy_" + name + "_total",
			Help: "Answers at /" + name + ", by HTTP status.",
		}, []string{"code"})
		c.WithLabelValues("200")
		c.WithLabelValues("503")
		r.MustRegister(c)
		counters["/"+name] = c
	}
	return func(path string, code int) {
		if c := counters[path]; c != nil {
			c.WithLabelValues(strconv.Itoa(code)).Inc()
		}
	}
}

// measureFile returns what is to be told whether the configuration file is wrong, so
// that it shows in a registry.
func measureFile(r prometheus.Registerer) func(wrong bool) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kube_nft_config_file_wrong",
		Help: "1 if the configuration file cannot be read or is wrong: what was in force stays so, but a process that starts would end.",
	})
	r.MustRegister(g)
	return func(wrong bool) {
		g.Set(0)
		if wrong {
			g.Set(1)
		}
	}
}

// status is what is served beside metrics, at the paths of kube-proxy.
type status struct {
	registry prometheus.Gatherer
	log      *logger
	// of is the configuration in force.
	of atomic.Pointer[config.Configuration]
	// page is the status page; nil is none.
	page *page
}

func newStatus(registry prometheus.Gatherer, log *logger, c *config.Configuration) *status {
	s := &status{registry: registry, log: log}
	s.of.Store(c)
	return s
}

func (s *status) handler() http.Handler {
	mux := http.NewServeMux()
	metrics := promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // what one collector lacks is no loss of the others
		MaxRequestsInFlight: maxScrapes,
		Timeout:             requestTime,
	})
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, "ok") })
	// How packets are treated, for tools that adapt to it, whatever mode was taken over.
	mux.HandleFunc("GET /proxyMode", func(w http.ResponseWriter, _ *http.Request) { plain(w, string(config.NFTables)) })
	mux.HandleFunc("GET /configz", s.configz)
	if s.page != nil {
		s.page.register(mux)
	}
	mux.HandleFunc("/debug/pprof/", s.profiling(pprof.Index))
	mux.HandleFunc("/debug/pprof/cmdline", s.profiling(pprof.Cmdline))
	mux.HandleFunc("/debug/pprof/profile", s.profiling(pprof.Profile))
	mux.HandleFunc("/debug/pprof/symbol", s.profiling(pprof.Symbol))
	mux.HandleFunc("/debug/pprof/trace", s.profiling(pprof.Trace))
	mux.HandleFunc("/debug/flags/v", s.profiling(s.setVerbosity))
	return mux
}

func plain(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	fmt.Fprint(w, text)
}

// configz answers with the configuration in force, as every part of Kubernetes does.
func (s *status) configz(w http.ResponseWriter, _ *http.Request) {
	body, err := json.Marshal(map[string]any{"kubeproxy.config.k8s.io": s.of.Load()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(body) // who asked may have gone
}

// profiling serves what is only there with enableProfiling, which may change.
func (s *status) profiling(serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.of.Load().EnableProfiling {
			http.NotFound(w, r)
			return
		}
		serve(w, r)
	}
}

// setVerbosity takes a level in the body: curl -X PUT --data 2 …/debug/flags/v.
func (s *status) setVerbosity(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut {
		http.Error(w, "PUT a number here, as in curl -X PUT --data 2", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 16))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(body)), 10, 8)
	if err != nil {
		http.Error(w, fmt.Sprintf("%q is no log level: send a number, as in curl -X PUT --data 2", body), http.StatusBadRequest)
		return
	}
	s.log.setVerbosity(int(v))
	plain(w, fmt.Sprintf("log level is %d now\n", v))
}
