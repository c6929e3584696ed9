// SPDX-License-Identifier: Apache-2.0

package peer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// Node is what a proxy is told of where it runs.
type Node struct {
	Name        string // of the Node object
	Kubeconfig  string
	ClusterCIDR string
	Dir         string // for files of the proxy's
}

// Launch is how a proxy is started.
type Launch struct {
	Path string
	Args []string
	Env  []string
}

// MetricsAddress is where each peer serves its metrics, and pprof, on its node.
const MetricsAddress = "127.0.0.1:10249"

// Launch returns how the peer's program is started on a node.
func (p Peer) Launch(program string, n Node) (Launch, error) {
	l := Launch{Path: program, Env: os.Environ()}
	if p.Module == "" {
		l.Args = []string{"run",
			"--kubeconfig", n.Kubeconfig,
			"--hostname-override", n.Name,
			"--cluster-cidr", n.ClusterCIDR,
			"--nodeport-addresses", "primary",
			"--conntrack-max-per-core", "0", // that is the machine's
			"--profiling",
			"--logging-format", "json", "--v", "2"}
		return l, nil
	}
	file := filepath.Join(n.Dir, "kube-proxy.yaml")
	l.Args = []string{"--config", file}
	if err := p.writeConfig(file, n); err != nil {
		return l, err
	}
	if p.Tools != "" {
		dir := filepath.Join(n.Dir, "tools")
		if err := linkTools(dir, p.Tools); err != nil {
			return l, err
		}
		l.Env = append(l.Env, "PATH="+dir+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	}
	return l, nil
}

// writeConfig writes kube-proxy's configuration. Periods are its own defaults: a look
// at everything each 30 s, and one pass a second at most. It changes no parameter of
// the machine's, and asks the API server as fast as it likes.
func (p Peer) writeConfig(path string, n Node) error {
	text, err := yaml.Marshal(map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               p.Mode,
		"clientConnection":   map[string]any{"kubeconfig": n.Kubeconfig, "qps": 1000, "burst": 1000, "contentType": "application/vnd.kubernetes.protobuf"},
		"hostnameOverride":   n.Name,
		"clusterCIDR":        n.ClusterCIDR,
		"detectLocalMode":    "ClusterCIDR",
		"nodePortAddresses":  []string{"primary"},
		"metricsBindAddress": MetricsAddress,
		"healthzBindAddress": "127.0.0.1:10256",
		"enableProfiling":    true,
		"oomScoreAdj":        0,
		"conntrack":          map[string]any{"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
		"logging":            map[string]any{"verbosity": 2},
	})
	if err != nil {
		return fmt.Errorf("write configuration of %s: %w", p.Name, err)
	}
	return os.WriteFile(path, text, 0o600)
}

// linkTools makes a directory in which iptables is of one kind.
func linkTools(dir, tools string) error {
	path, err := lookPath(multi(tools))
	if err != nil {
		return err
	}
	err = os.MkdirAll(dir, 0o755)
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, what := range []string{"", "-save", "-restore"} {
			link := filepath.Join(dir, family+what)
			if there := os.Symlink(path, link); there != nil && !errors.Is(there, os.ErrExist) {
				err = errors.Join(err, there)
			}
		}
	}
	return err
}
