// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

func TestNewClientNoCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", "/not/asked")
	if _, _, err := NewClient(ClientOptions{}); !errors.Is(err, ErrNoCluster) {
		t.Errorf("want ErrNoCluster, got %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token"); err == nil {
		t.Skip("this is a pod")
	}
	if _, _, err := NewClient(ClientOptions{}); err == nil || errors.Is(err, ErrNoCluster) || !strings.Contains(err.Error(), "service account") {
		t.Errorf("a pod without a token: %v", err)
	}
}

func TestNewClientKubeconfig(t *testing.T) {
	t.Parallel()
	var got *http.Request
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		w.Header().Set("Content-Type", "application/json") // a server without protobuf
		_, _ = w.Write([]byte(service("web", "1")))
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "` + server.URL + `"}}], users: [{name: u, user: {token: t}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, opts := range []ClientOptions{
		{Kubeconfig: path, Version: "1.2.3"},
		{Server: server.URL, Version: "1.2.3", QPS: 5, Burst: 10},
	} {
		client, at, err := NewClient(opts)
		if err != nil {
			t.Fatal(err)
		}
		if at != server.URL {
			t.Errorf("the server is at %s", at)
		}
		var s corev1.Service
		if err := client.core.Get().Namespace("default").Resource("services").Name("web").Do(t.Context()).Into(&s); err != nil || s.Name != "web" {
			t.Fatalf("%v, %v", s, err)
		}
		if a := got.Header.Get("Accept"); a != "application/vnd.kubernetes.protobuf,application/json" {
			t.Errorf("Accept: %q", a)
		}
		if a := got.UserAgent(); !strings.HasPrefix(a, "kube-nft/1.2.3 ") {
			t.Errorf("User-Agent: %q", a)
		}
	}
	missing := filepath.Join(t.TempDir(), "nothing")
	if _, _, err := NewClient(ClientOptions{Kubeconfig: missing}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: %v", err)
	}
}

// TestClientLimit: the requests of all groups have one limit of their rate.
func TestClientLimit(t *testing.T) {
	t.Parallel()
	c, err := NewClientFor(&rest.Config{Host: "http://api", QPS: 5, Burst: 10})
	if err != nil {
		t.Fatal(err)
	}
	limit := c.core.GetRateLimiter()
	for _, group := range []rest.Interface{c.discovery, c.networking, c.events} {
		if group.GetRateLimiter() != limit {
			t.Errorf("%s has a limit of its own", group.APIVersion())
		}
	}
	if _, err := NewClientFor(&rest.Config{Host: "http://api", QPS: 5}); err == nil || !strings.Contains(err.Error(), "burst is required") {
		t.Errorf("no burst: %v", err)
	}
}

// TestServiceAddress: what the kubelet says of the API is no way to it, whoever names
// it.
func TestServiceAddress(t *testing.T) {
	for _, tt := range []struct {
		server, port string
		want         bool
	}{
		{"https://10.96.0.1:443", "tcp://10.96.0.1:443", true},
		{"https://10.96.0.1", "tcp://10.96.0.1:443", true},
		{"https://[fd00::1]:443", "tcp://[fd00::1]:443", true},
		{"https://192.0.2.1:6443", "tcp://10.96.0.1:443", false},
		{"https://api.example.org:443", "tcp://10.96.0.1:443", false},
		{"https://10.96.0.1:443", "", false},
	} {
		t.Setenv("KUBERNETES_PORT", tt.port)
		if got := serviceAddress(tt.server); got != tt.want {
			t.Errorf("%s, %s: %t", tt.server, tt.port, got)
		}
	}
}

// TestWarnOfServiceAddress: a kubeconfig with the Service's address is told once.
func TestWarnOfServiceAddress(t *testing.T) {
	t.Parallel()
	kubernetes := func() *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes"},
			Spec:       corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1", "fd00::1"}},
		}
	}
	for server, want := range map[string]int{
		"https://10.96.0.1:443": 1, "https://[fd00::1]:6443": 1, "https://10.96.0.1": 1,
		"https://192.0.2.1:6443": 0, "https://kubernetes.example.org": 0, "": 0,
	} {
		var log netlab.Output
		a := &api{opts: APIOptions{Server: server, Logger: slog.New(slog.NewTextHandler(&log, nil))}}
		delivered := 0
		set := a.warnOfServiceAddress(func(*corev1.Service) { delivered++ })
		set(kubernetes())
		other := kubernetes()
		other.Name = "other"
		set(other)
		set(kubernetes())
		if got := log.Count("address of Service default/kubernetes"); got != want || delivered != 3 {
			t.Errorf("%q: %d warnings, want %d; %d delivered", server, got, want, delivered)
		}
	}
}

func TestServiceSelect(t *testing.T) {
	t.Parallel()
	for proxy, want := range map[string]string{"": "!service.kubernetes.io/service-proxy-name", "kube-nft": "service.kubernetes.io/service-proxy-name=kube-nft"} {
		if got := serviceSelect(proxy); got != want {
			t.Errorf("%q: %q", proxy, got)
		}
	}
}
