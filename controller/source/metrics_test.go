// SPDX-License-Identifier: Apache-2.0

package source

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// TestMeasureRequests: requests are counted by the server's answer, and by "<error>"
// if there was none, as everywhere in Kubernetes.
func TestMeasureRequests(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/nodes") {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{"kind":"ServiceList","apiVersion":"v1","metadata":{},"items":[]}`))
	}))
	client := clientFor(t, server.URL)
	list := func(resource string) error { return client.core.Get().Resource(resource).Do(t.Context()).Error() }
	if err := list("services"); err != nil {
		t.Fatal(err)
	}
	if err := list("nodes"); err == nil {
		t.Fatal("nodes are listed")
	}
	server.Close()
	if err := list("services"); err == nil {
		t.Fatal("there is no server")
	}
	registry := prometheus.NewPedanticRegistry()
	MeasureRequests(registry)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(server.URL, "http://") // other tests make requests too
	got := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.Metric {
			labels := make(map[string]string)
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["host"] == host {
				got[family.GetName()+" "+labels["code"]+labels["method"]+labels["verb"]] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	want := map[string]float64{
		"rest_client_requests_total 200GET":        1,
		"rest_client_requests_total 403GET":        1,
		"rest_client_requests_total <error>GET":    1,
		"rest_client_request_duration_seconds GET": 3,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
