// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProxiesHere: a kube-proxy is known by its command line, and by where it runs.
func TestProxiesHere(t *testing.T) {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		line, net    string
		want, inside bool
	}{
		{"/usr/local/bin/kube-proxy --config=/c", own, true, false},
		{"kube-proxy", own, true, false},
		{"kube-proxy --config=/c", "net:[1]", false, false},
		{"kube-proxy --cleanup", own, false, false},
		{"/usr/local/bin/k3s server", own, true, true},
		{"k3s agent --disable-kube-proxy", own, false, false},
		{"k3s kubectl get pods", own, false, false},
		{"sh -c kube-proxy", own, false, false},
	} {
		proc := t.TempDir()
		dir := filepath.Join(proc, "7", "ns")
		for _, err := range []error{
			os.MkdirAll(dir, 0o755), os.Symlink(tt.net, filepath.Join(dir, "net")),
			os.WriteFile(filepath.Join(proc, "7", "cmdline"), []byte(strings.ReplaceAll(tt.line, " ", "\x00")+"\x00"), 0o644),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		all, err := proxiesHere(proc)
		if err != nil || (len(all) == 1) != tt.want || (tt.want && all[0].inside() != tt.inside) {
			t.Errorf("%s: found %v, %v", tt.line, all, err)
		}
	}
}

// TestRunsHere: back wants to have seen a kube-proxy in this namespace.
func TestRunsHere(t *testing.T) {
	proxy, k3s := proxyProcess{pid: 7, args: []string{"/bin/kube-proxy"}}, proxyProcess{pid: 8, args: []string{"/bin/k3s server"}}
	unsure := proxy
	unsure.unsure = true
	for _, tt := range []struct {
		name string
		all  []proxyProcess
		want string // "" is none
	}{
		{"none", nil, "none can be seen"},
		{"one", []proxyProcess{k3s, unsure, proxy}, ""},
		{"maybe elsewhere", []proxyProcess{unsure}, "whether process 7 (kube-proxy) is in this network namespace"},
		{"maybe without", []proxyProcess{k3s}, "process 8 (k3s) may have been started without it"},
	} {
		if err := runsHere(tt.all, nil); (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
