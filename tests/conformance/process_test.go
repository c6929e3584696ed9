// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// process is a proxy in the namespace of a site's node.
type process struct {
	cmd    *netlab.Cmd
	output string
	done   chan struct{} // closed when it has ended
}

// start starts a program that ends with the test, at the latest. The ends of its
// output are in that of a test that fails.
func (s *site) start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{output: filepath.Join(t.TempDir(), "output"), done: make(chan struct{})}
	out, err := os.Create(p.output)
	s.Must(err)
	defer out.Close()
	p.cmd = s.node.Command(context.Background(), name, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	s.Must(p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // killed, as a rule
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("%s said at last:\n%s", filepath.Base(name), p.tail(60))
		}
	})
	return p
}

// kill ends the process, which may have ended, and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
}

// alive returns an error if the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %v\n%s", p.cmd.Path, p.cmd.ProcessState, p.tail(20))
	default:
		return nil
	}
}

// tail returns the last lines of the output.
func (p *process) tail(n int) string {
	text, err := os.ReadFile(p.output)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// settings are what both proxies are told.
type settings struct {
	detectLocal       string // a mode; empty is ClusterCIDR
	ofInterface       string // what an interface mode wants: a name, or how names begin
	clusterCIDR       string
	localhost         bool   // node ports at localhost, too
	nodePortAddresses string // as on the command line
	masqueradeAll     bool
	masqueradeBit     int
}

// defaults are what a test that is not about settings uses.
var defaults = settings{clusterCIDR: clusterCIDR, nodePortAddresses: "primary", masqueradeBit: 14}

// runOurs starts kube-nft.
func (s *site) runOurs(t *testing.T, kubeconfig string, c settings) *process {
	t.Helper()
	args := []string{"run",
		"--kubeconfig", kubeconfig,
		"--hostname-override", nodeName,
		"--nodeport-addresses", c.nodePortAddresses,
		"--iptables-masquerade-bit", fmt.Sprint(c.masqueradeBit),
		"--conntrack-max-per-core", "0",
		"--v", "2"}
	if c.clusterCIDR != "" {
		args = append(args, "--cluster-cidr", c.clusterCIDR)
	}
	if c.masqueradeAll {
		args = append(args, "--masquerade-all")
	}
	if c.localhost {
		args = append(args, "--localhost-nodeports")
	}
	if c.detectLocal != "" {
		args = append(args, "--detect-local-mode", c.detectLocal)
	}
	switch c.detectLocal {
	case "BridgeInterface":
		args = append(args, "--pod-bridge-interface", c.ofInterface)
	case "InterfaceNamePrefix":
		args = append(args, "--pod-interface-name-prefix", c.ofInterface)
	}
	return s.start(t, os.Getenv(programEnv), args...)
}

// runTheirs starts kube-proxy. It changes no sysctl that is not its namespace's own,
// and none that is, and it programs a change at once instead of once a second.
func (s *site) runTheirs(t *testing.T, path, kubeconfig string, c settings) *process {
	t.Helper()
	nodePortAddresses := strings.Split(c.nodePortAddresses, ",")
	if c.localhost {
		nodePortAddresses = append(nodePortAddresses, "localhost")
	}
	config, err := yaml.Marshal(map[string]any{
		"apiVersion":         "kubeproxy.config.k8s.io/v1alpha1",
		"kind":               "KubeProxyConfiguration",
		"mode":               "nftables",
		"clientConnection":   map[string]any{"kubeconfig": kubeconfig, "qps": 1000, "burst": 1000},
		"hostnameOverride":   nodeName,
		"clusterCIDR":        c.clusterCIDR,
		"detectLocalMode":    c.detectLocal,
		"detectLocal":        map[string]any{"bridgeInterface": c.ofInterface, "interfaceNamePrefix": c.ofInterface},
		"nodePortAddresses":  nodePortAddresses,
		"featureGates":       map[string]bool{"KubeProxyNFTablesLocalhostNodePorts": c.localhost},
		"healthzBindAddress": "127.0.0.1:10256",
		"metricsBindAddress": "127.0.0.1:10249",
		"oomScoreAdj":        0,
		"conntrack": map[string]any{
			"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
		},
		"nftables": map[string]any{
			"minSyncPeriod": "1ms", "syncPeriod": "1s",
			"masqueradeAll": c.masqueradeAll, "masqueradeBit": c.masqueradeBit,
		},
		"logging": map[string]any{"verbosity": 2},
	})
	s.Must(err)
	file := filepath.Join(t.TempDir(), "kube-proxy.yaml")
	s.Must(os.WriteFile(file, config, 0o600))
	return s.start(t, path, "--config", file)
}
