// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kube-nft/kube-nft/tests/process"
)

const proxyName = "service.kubernetes.io/service-proxy-name"

// TestTrial puts one Service of two on kube-nft, beside a kube-proxy that goes on, and
// back, with the configuration of the overlay that operators apply. Open connections
// stay, the other Service is not touched, and each Service is its proxy's alone.
func TestTrial(t *testing.T) {
	needIptables(t)
	for _, mode := range []string{"nftables", "iptables"} {
		t.Run(mode, func(t *testing.T) {
			s := newSite(t, 1)
			n := s.nodes[0]
			for range 2 {
				s.createPod(n, "web")
			}
			s.createPod(n, "shop")
			tried, other := s.apply("tried", "web", "type: NodePort"), s.apply("other", "web", "type: NodePort")
			s.startProxy(n, mode)
			s.awaitProxy(n)
			s.carried(n, tried)
			s.carried(n, other)

			agent := s.startTrial(n)
			steady, moved := s.startTraffic(s.flowsTo(other)), s.startTraffic(s.flowsTo(tried))
			if tables := s.Run(n.Namespace, "nft", "list", "table", "ip", "kube-nft"); strings.Contains(tables, "default/") {
				t.Errorf("kube-nft has Services that nobody gave it:\n%s", tables)
			}
			s.kubectl("", "label", "service", "tried", proxyName+"=kube-nft")
			s.owned(n, tried, true)
			s.carried(n, tried)
			s.createPod(n, "web") // both follow
			s.carried(n, tried)
			s.carried(n, other)
			moved.goOn(s)
			s.kubectl("", "label", "service", "tried", proxyName+"-")
			s.owned(n, tried, false)
			s.carried(n, tried)
			moved.goOn(s)
			s.lossless(steady, "the other Service")
			o := moved.stop()
			t.Logf("the Service that was tried, there and back: %v", o)
			if o.lost > 0 {
				t.Errorf("connections were lost:\n%s", strings.Join(o.failures, "\n"))
			}
			for _, line := range agent.Logged("") {
				if level := line["level"]; level == "WARN" || level == "ERROR" {
					t.Errorf("kube-nft said %v", line)
				}
			}
		})
	}
}

// startTrial starts kube-nft as the overlay for a trial has it; what the operator
// edits is edited.
func (s *site) startTrial(n *node) *process.Process {
	s.t.Helper()
	var config corev1.ConfigMap
	for doc := range strings.SplitSeq(s.kubectl("", "kustomize", "../../deploy/kustomize/overlays/trial"), "\n---\n") {
		if strings.Contains(doc, "\nkind: ConfigMap\n") {
			s.Must(yaml.Unmarshal([]byte(doc), &config))
		}
	}
	text := strings.Replace(config.Data["config.conf"], `clusterCIDR: ""`, "clusterCIDR: "+clusterCIDR, 1) +
		"clientConnection: {kubeconfig: " + s.kubeconfig + "}\nlogging: {format: json, verbosity: 2}\n"
	path := filepath.Join(s.t.TempDir(), "config.conf")
	s.Must(os.WriteFile(path, []byte(text), 0o600))
	agent := process.Start(s.t, n.Namespace, process.KubeNFT(), "run", "--config", path, "--hostname-override", n.Name(), "--service-proxy-name=kube-nft")
	agent.AwaitStatus(soon, "http://127.0.0.1:10296/readyz", http.StatusOK)
	return agent
}

// carried waits until a Service leads to all pods of web, from everywhere.
func (s *site) carried(n *node, to service) {
	s.t.Helper()
	all := names(s.podsOf("web"))
	for f := range families {
		for _, network := range []string{"tcp", "udp"} {
			s.Answers(soon, n.Namespace, network, to.at(f), all...)
			s.Answers(soon, s.podOn(n, "shop").Namespace, network, to.at(f), all...)
			s.Answers(soon, s.client, network, to.atNode(n, network, f), all...)
		}
	}
}

// owned waits until a Service is in kube-nft's table and in nothing else, or the other
// way around.
func (s *site) owned(n *node, of service, ours bool) {
	s.t.Helper()
	s.Eventually(soon, func() error {
		table := s.Run(n.Namespace, "nft", "list", "table", "ip", "kube-nft")
		rules := s.Run(n.Namespace, "iptables-save", "-t", "nat")
		if tables := s.Run(n.Namespace, "nft", "list", "tables"); strings.Contains(tables, "ip kube-proxy\n") {
			rules += s.Run(n.Namespace, "nft", "list", "table", "ip", "kube-proxy")
		}
		addr := of.addrs[0].String()
		if strings.Contains(table, addr) != ours || strings.Contains(rules, addr) == ours {
			return fmt.Errorf("Service %s: to be kube-nft's is %t, in kube-nft's table:\n%s\nin kube-proxy's rules: %t", of.name, ours, table, strings.Contains(rules, addr))
		}
		return nil
	})
}
