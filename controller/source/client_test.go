// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNewClientNoCluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", "/not/asked")
	if _, err := NewClient(ClientOptions{}); !errors.Is(err, ErrNoCluster) {
		t.Errorf("want ErrNoCluster, got %v", err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "443")
	if _, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token"); err == nil {
		t.Skip("this is a pod")
	}
	if _, err := NewClient(ClientOptions{}); err == nil || errors.Is(err, ErrNoCluster) || !strings.Contains(err.Error(), "service account") {
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
		client, err := NewClient(opts)
		if err != nil {
			t.Fatal(err)
		}
		s, err := client.CoreV1().Services("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil || s.Name != "web" {
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
	if _, err := NewClient(ClientOptions{Kubeconfig: missing}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: %v", err)
	}
}
