// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kube-nft/kube-nft/controller"
	"github.com/kube-nft/kube-nft/controller/config"
	"github.com/kube-nft/kube-nft/nft"
	"github.com/kube-nft/kube-nft/nft/kernel"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestMetricsAreDocumented keeps docs/metrics.md and the registry in step: the same
// names, with the same labels. What every program has is documented as a whole.
func TestMetricsAreDocumented(t *testing.T) {
	registry := newRegistry()
	controller.New(controller.Config{
		Rules:   controller.Rules{Options: map[nft.Family]nft.Options{nft.IPv4: {}, nft.IPv6: {}}},
		Logger:  slog.New(slog.DiscardHandler),
		Metrics: registry,
		Clients: (*kernel.Conn)(nil),

		ServiceConnections: (*kernel.Conn)(nil),
	}, nil)
	controller.MeasureWalks(registry)
	countProbes(registry)
	measureFile(registry)
	descs := make(chan *prometheus.Desc, 1000)
	registry.Describe(descs)
	close(descs)
	registered := make(map[string]string)
	fields := regexp.MustCompile(`fqName: "([a-z_]+)", .*variableLabels: \{(.*?)\}`)
	for d := range descs {
		m := fields.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("cannot read %s", d)
		}
		if strings.HasPrefix(m[1], "go_") || strings.HasPrefix(m[1], "process_") {
			continue
		}
		registered[m[1]] = m[2]
	}
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| [a-z]+ \\| (.*?) \\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = strings.NewReplacer("`", "", ", ", ",", "none", "").Replace(row[2])
	}
	if d := cmp.Diff(documented, registered); d != "" || len(registered) == 0 {
		t.Errorf("docs/metrics.md and the program differ (-documented +registered):\n%s", d)
	}
}

// TestServeMetrics: an address that is taken is served once it is free, and there
// is nothing to see but what kube-proxy shows.
func TestServeMetrics(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.3:0") // whose ports no other test takes once this one is free
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	address := other.Addr().String()
	var log netlab.Output
	status := newStatus(newRegistry(), &logger{}, config.New())
	server := server{what: "metrics", setting: "--metrics-bind-address", address: address, handler: status.handler(),
		log: slog.New(slog.NewTextHandler(&log, nil)), again: time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = server.run(ctx); close(done) }()
	eventually := func(f func() error) {
		t.Helper()
		if err := netlab.Poll(10*time.Second, f); err != nil {
			t.Fatal(err)
		}
	}
	eventually(func() error {
		if log.Count("cannot serve metrics") == 0 {
			return errors.New("nothing was said of a port that is taken")
		}
		return nil
	})
	other.Close()
	ask := func(method, path string) (int, string, error) {
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
		if err != nil {
			return 0, "", err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0, "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, string(body), err
	}
	eventually(func() error {
		code, body, err := ask(http.MethodGet, "/metrics")
		if code != http.StatusOK || !strings.Contains(body, "\ngo_goroutines ") {
			return fmt.Errorf("answer %d, %v: %s", code, err, body)
		}
		return nil
	})
	for path, want := range map[string]int{"/": 404, "/debug/pprof/": 404, "/debug/pprof/heap": 404, "/metrics/slis": 404, "/healthz": 200} {
		if code, _, err := ask(http.MethodGet, path); code != want {
			t.Errorf("%s: %d, %v, want %d", path, code, err, want)
		}
	}
	if code, _, err := ask(http.MethodPost, "/metrics"); code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d, %v", code, err)
	}
	cancel()
	<-done
	if _, _, err := ask(http.MethodGet, "/metrics"); err == nil {
		t.Error("it is still served")
	}
	if n := log.Count(); n != 2 {
		t.Errorf("%d lines, want two:\n%s", n, &log)
	}
}
