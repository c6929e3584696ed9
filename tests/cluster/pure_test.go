// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPortsInUse(t *testing.T) {
	t.Parallel()
	const table = `  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000
  sl  local_address                         remote_address
   0: 00000000000000000000000001000000:01BB 00000000000000000000000000000000:0000 0A
`
	want := map[uint16]bool{8080: true, 443: true}
	if diff := cmp.Diff(want, portsInUse([]byte(table))); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
}

func TestRequired(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, mod, want string }{
		{"block", "require (\n\tk8s.io/kubernetes v1.2.3\n)\n", "v1.2.3"},
		{"line", "require k8s.io/kubernetes v1.2.3 // indirect\n", "v1.2.3"},
		{"tool is no requirement", "tool k8s.io/kubernetes/cmd/kubectl\nrequire k8s.io/kubernetes v1.2.3\n", "v1.2.3"},
		{"another module", "require k8s.io/kubernetes/x v1.2.3\n", ""},
		{"none", "module k8s.io/kubernetes\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := required([]byte(tt.mod), kubernetes)
			if got != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("version is %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// TestCached checks that a program of another version has another place.
func TestCached(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/cache")
	mod := []byte("require k8s.io/kubernetes v1.2.3\n")
	tests := []struct {
		program       program
		version, want string
	}{
		{sources[APIServer], "v1.2.3", "/cache/kube-nft/kubernetes-v1.2.3/kube-apiserver"},
		{sources[Etcd], "v3.4.5", "/cache/kube-nft/kubernetes-v1.2.3/etcd-v3.4.5"},
		{sources[Proxy], "v1.2.3", "/cache/kube-nft/kubernetes-v1.2.3/kube-proxy"},
	}
	for _, tt := range tests {
		t.Run(string(tt.program.name), func(t *testing.T) {
			got, err := tt.program.cached(mod, tt.version)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("path (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		lines      int
		want       string
	}{
		{"empty", "", 2, ""},
		{"short", "a\n", 2, "a\n"},
		{"exact", "a\nb\n", 2, "a\nb\n"},
		{"long", "a\nb\nc\n", 2, "b\nc\n"},
		{"blank lines count", "\n\n\n", 2, "\n\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, string(tail([]byte(tt.text), tt.lines))); diff != "" {
				t.Errorf("tail (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	path, log := filepath.Join(t.TempDir(), "lock"), slog.New(slog.DiscardHandler)
	unlock, err := lock(t.Context(), log, path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, log, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second lock: %v, want %v", err, context.DeadlineExceeded)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = lock(t.Context(), log, path); err != nil {
		t.Fatal(err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}
