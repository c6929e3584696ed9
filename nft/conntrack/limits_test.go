// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// machine is a directory with the parameters of a machine of 4 CPUs.
func machine(t *testing.T, change map[string]string) (root string, files map[string]string) {
	t.Helper()
	root = t.TempDir()
	files = map[string]string{
		online:                        "0-1,4-5",
		buckets:                       "65536",
		sysctls + "/nf_conntrack_max": "65536",
		sysctls + "/nf_conntrack_tcp_timeout_established": "432000",
		sysctls + "/nf_conntrack_tcp_timeout_close_wait":  "3600",
		sysctls + "/nf_conntrack_tcp_be_liberal":          "0",
		sysctls + "/nf_conntrack_udp_timeout":             "30",
		sysctls + "/nf_conntrack_udp_timeout_stream":      "120",
	}
	for name, text := range change {
		files[name] = text
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if text == "" {
			delete(files, name)
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root, files
}

// kubeProxy are kube-proxy's defaults.
var kubeProxy = Limits{MaxPerCore: 32768, Min: 131072, TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}

func TestApply(t *testing.T) {
	const max, established = sysctls + "/nf_conntrack_max", sysctls + "/nf_conntrack_tcp_timeout_established"
	cases := []struct {
		name   string
		limits Limits
		is     map[string]string // what differs from the usual machine
		want   map[string]string // what is written
		warned []string
	}{
		{"nothing asked for", Limits{}, nil, nil, nil},
		{"defaults", kubeProxy, map[string]string{buckets: "16384"},
			map[string]string{max: "131072", buckets: "32768", established: "86400"}, nil},
		{"large enough", kubeProxy, map[string]string{max: "131072", buckets: "1024", established: "86400"}, nil, nil},
		{"larger than asked for", kubeProxy, map[string]string{max: "262144", established: "86400"}, nil, nil},
		{"hash table large enough", kubeProxy, nil, map[string]string{max: "131072", established: "86400"}, nil},
		{"more per core than the minimum", Limits{MaxPerCore: 50_000, Min: 131072}, nil, map[string]string{max: "200000"}, nil},
		{"no more than a million per core", Limits{MaxPerCore: 1 << 20, Min: 131072}, nil,
			map[string]string{max: "1048576", buckets: "262144"}, nil},
		{"minimum alone means nothing", Limits{Min: 131072}, nil, nil, nil},
		{"everything", Limits{TCPEstablished: time.Hour, TCPCloseWait: time.Minute, UDP: 40 * time.Second, UDPStream: 3*time.Minute + time.Millisecond, TCPBeLiberal: true}, nil,
			map[string]string{
				established: "3600",
				sysctls + "/nf_conntrack_tcp_timeout_close_wait": "60",
				sysctls + "/nf_conntrack_tcp_be_liberal":         "1",
				sysctls + "/nf_conntrack_udp_timeout":            "40",
				sysctls + "/nf_conntrack_udp_timeout_stream":     "180",
			}, nil},
		{"not liberal is no wish", Limits{}, map[string]string{sysctls + "/nf_conntrack_tcp_be_liberal": "1"}, nil, nil},
		{"a parameter is missing", kubeProxy, map[string]string{max: "", buckets: "1024"},
			map[string]string{established: "86400"}, []string{"nf_conntrack_max"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			root, want := machine(t, tc.is)
			for name, text := range tc.want {
				want[name] = text
			}
			var log bytes.Buffer
			tc.limits.Apply(root, slog.New(slog.NewTextHandler(&log, nil)))
			got := make(map[string]string)
			for name := range want {
				text, err := os.ReadFile(filepath.Join(root, name))
				if err != nil {
					t.Fatal(err)
				}
				got[name] = strings.TrimSpace(string(text))
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != len(tc.warned) {
				t.Errorf("%d warnings, want %v:\n%s", n, tc.warned, log.String())
			}
			for _, name := range tc.warned {
				if !strings.Contains(log.String(), "parameter="+name) {
					t.Errorf("nothing is said of %s:\n%s", name, log.String())
				}
			}
		})
	}
}

// TestApplyNamespace: in a network namespace the limit of entries cannot be set,
// which is said, and so the machine's hash table is not touched; the timeouts are
// the namespace's own.
func TestApplyNamespace(t *testing.T) {
	lab := netlab.NewT(t)
	root, _ := machine(t, nil)
	if err := os.RemoveAll(filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/proc", filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ns := lab.Namespace("node")
	writable := ns.Do(func() error {
		f, err := os.OpenFile("/proc/sys/net/netfilter/nf_conntrack_max", os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return f.Close()
	})
	if !errors.Is(writable, fs.ErrPermission) {
		t.Skipf("this kernel may let a namespace set nf_conntrack_max: %v", writable)
	}
	before := lab.Run(ns, "cat", "/"+buckets)
	lab.Must(ns.Do(func() error {
		more := kubeProxy
		more.MaxPerCore = 1 << 30 // more than any machine has
		more.UDP = 77 * time.Second
		more.Apply(root, slog.New(slog.NewTextHandler(&log, nil)))
		return nil
	}))
	for name, want := range map[string]string{"udp_timeout": "77", "tcp_timeout_established": "86400"} {
		if got := lab.Run(ns, "cat", "/proc/sys/net/netfilter/nf_conntrack_"+name); strings.TrimSpace(got) != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if after := lab.Run(ns, "cat", "/"+buckets); after != before {
		t.Errorf("the machine's hash table has %s buckets, before %s", after, before)
	}
	said := strings.Contains(log.String(), "parameter=nf_conntrack_max")
	if now := strings.TrimSpace(lab.Run(ns, "cat", "/proc/sys/net/netfilter/nf_conntrack_max")); said == (now == "1048576") {
		t.Errorf("the limit is %s, and this is said:\n%s", now, log.String())
	}
}

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-1,4-5,7": 5, "": 0, "3-1": 0, "x": 0, "1-": 0} {
		if n, err := countCPUs(list); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d, %v", list, n, err)
		}
	}
	if n := cpus("/"); n < 1 {
		t.Errorf("%d CPUs here", n)
	}
}
