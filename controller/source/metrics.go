// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/metrics"
)

// The names, labels and buckets are those of every component of Kubernetes
// (k8s.io/component-base/metrics/prometheus/restclient), which brings a registry
// of its own along. client-go takes adapters once and reads them without a lock,
// hence they are there before the first client.
var (
	requests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rest_client_requests_total",
		Help: "Requests to the API server, by the code of the answer, method and host.",
	}, []string{"code", "method", "host"})
	requestDuration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "rest_client_request_duration_seconds",
		Help:    "Time until the API server had answered, by verb and host; without watches.",
		Buckets: []float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60},
	}, []string{"verb", "host"})
)

func init() {
	metrics.Register(metrics.RegisterOpts{RequestLatency: latency{}, RequestResult: result{}})
}

// MeasureRequests registers the metrics of requests to the API server, those of all
// clients of the process.
func MeasureRequests(r prometheus.Registerer) { r.MustRegister(requests, requestDuration) }

// result implements metrics.ResultMetric.
type result struct{}

func (result) Increment(_ context.Context, code, method, host string) {
	requests.WithLabelValues(code, method, host).Inc()
}

// latency implements metrics.LatencyMetric.
type latency struct{}

func (latency) Observe(_ context.Context, verb string, u url.URL, took time.Duration) {
	requestDuration.WithLabelValues(verb, u.Host).Observe(took.Seconds())
}
