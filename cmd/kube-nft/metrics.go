// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
)

// metricsOptions say where metrics are served.
type metricsOptions struct{ address string }

func (o *metricsOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.address, "metrics-bind-address", "127.0.0.1:10249", "address and port to serve /metrics on; empty is nowhere")
}

// check reports an address that nothing can listen on.
func (o *metricsOptions) check() error {
	if o.address == "" {
		return nil
	}
	if a, err := netip.ParseAddrPort(o.address); err != nil || a.Port() == 0 {
		return fmt.Errorf("--metrics-bind-address: %q is not an IP address and a port, as in 127.0.0.1:10249 or [::]:10249; %w", o.address, errUsage)
	}
	return nil
}

// newRegistry returns a registry of the metrics that every program has.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// listenAgain is how often an address that is taken is tried, as in kube-proxy
// unless it is told to fail (bindAddressHardFail).
const listenAgain = 5 * time.Second

// What a reader may cost: scrapes are few, small and quick.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// metricsServer serves a registry.
type metricsServer struct {
	address  string
	registry prometheus.Gatherer
	log      *slog.Logger
	again    time.Duration // between attempts to listen
}

// run serves until ctx ends. It goes on trying where it cannot listen: nothing
// else depends on it.
func (s *metricsServer) run(ctx context.Context) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // what one collector lacks is no loss of the others
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
	}))
	failing := false
	for ctx.Err() == nil {
		err := listen(ctx, s.address, mux, func() {
			failing = false
			s.log.Info("serving metrics", "url", "http://"+s.address+"/metrics")
		})
		if err != nil && !failing {
			failing = true
			s.log.Warn("cannot serve metrics, all else goes on; will try again", "err", err, "every", s.again,
				"mend", "free the address, or give another one with --metrics-bind-address")
		}
		select {
		case <-ctx.Done():
		case <-time.After(s.again):
		}
	}
}

// listen serves HTTP until ctx ends, and says when it has begun.
func listen(ctx context.Context, address string, handler http.Handler, begun func()) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: scrapeTimeout,
		WriteTimeout:      2 * scrapeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, 0), // of clients that misbehave
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	begun()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
