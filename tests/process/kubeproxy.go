// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

// WriteProxyConfig writes a KubeProxyConfiguration with these fields, and returns its
// path. Beside them it says that kube-proxy changes no sysctl that is not its
// namespace's own, and none that is, and that it programs a change at once instead
// of once a second.
func WriteProxyConfig(tb testing.TB, kubeconfig, node string, fields map[string]any) string {
	tb.Helper()
	config := map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clientConnection":   map[string]any{"kubeconfig": kubeconfig, "qps": 1000, "burst": 1000},
		"hostnameOverride":   node,
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"oomScoreAdj":        0,
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
		},
		"iptables": map[string]any{"minSyncPeriod": "1ms", "syncPeriod": "1s"},
		"nftables": map[string]any{"minSyncPeriod": "1ms", "syncPeriod": "1s"},
		"logging":  map[string]any{"verbosity": 2},
	}
	for k, v := range fields {
		config[k] = v
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "kube-proxy.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
