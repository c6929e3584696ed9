// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/process"
)

// An order is how a node is handed over. In each of them the one that comes has
// programmed the node before what the other one programmed is removed.
type order string

const (
	// overlap has both run for a while, on different ports.
	overlap order = "overlap"
	// handover stops the one, whose tables stay, before it starts the other.
	handover order = "handover"
	// atOnce starts the other while the one is about to end: what DaemonSets do that
	// choose their nodes by a label. The other waits for its ports.
	atOnce order = "at once"
)

// TestRollout hands five nodes over from kube-proxy to kube-nft and back, node by
// node, while connections run: none is lost, and every question is answered.
func TestRollout(t *testing.T) {
	needIptables(t)
	s := newSite(t, 5)
	for _, n := range s.nodes {
		s.createPod(n, "web")
		s.createPod(n, "shop")
	}
	web := s.apply("web", "web", "type: NodePort")
	local := s.apply("local", "web", "type: NodePort", "externalTrafficPolicy: Local")
	plan := []struct {
		mode  string
		order order
	}{{"nftables", overlap}, {"nftables", handover}, {"nftables", atOnce}, {"iptables", overlap}, {"iptables", handover}}
	proxies, agents := make([]*process.Process, len(plan)), make([]*process.Process, len(plan))
	for i, n := range s.nodes {
		proxies[i] = s.startProxy(n, plan[i].mode)
	}
	for _, n := range s.nodes {
		s.awaitProxy(n)
		s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)
		s.Answers(soon, s.client, "tcp", local.atNode(n, "tcp", 1), s.podOn(n, "web").Name())
	}
	flows := s.flowsTo(web)
	for _, n := range s.nodes {
		flows = append(flows,
			&flow{from: s.client, network: "tcp", to: local.atNode(n, "tcp", 0)},
			&flow{from: s.client, network: "tcp", to: local.atNode(n, "tcp", 1), anew: true})
	}
	tr := s.startTraffic(flows)

	for i, n := range s.nodes {
		began := time.Now()
		if plan[i].order == handover {
			proxies[i].End(syscall.SIGTERM)
		}
		flags, ready := []string(nil), readyz
		if plan[i].order == overlap {
			flags, ready = otherPorts, "http://127.0.0.1:10356/readyz"
		}
		agents[i] = s.startAgent(n, flags...)
		if plan[i].order == atOnce {
			proxies[i].End(syscall.SIGTERM)
		}
		agents[i].AwaitStatus(soon, ready, http.StatusOK)
		tr.goOn(s)
		proxies[i].End(syscall.SIGTERM)
		s.cleanProxy(n)
		tr.goOn(s)
		t.Logf("%s: from kube-proxy (%s) to kube-nft by %s in %v", n.Name(), plan[i].mode, plan[i].order, time.Since(began).Round(time.Millisecond))
	}
	// Not what kube-proxy has left: the Service is another one now.
	late := s.createPod(s.nodes[0], "web")
	for _, n := range s.nodes {
		s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)
	}
	t.Logf("all nodes are kube-nft's; %s is an endpoint more", late.Name())

	for i, n := range s.nodes {
		began := time.Now()
		if plan[i].order == handover {
			agents[i].End(syscall.SIGTERM)
		}
		proxies[i] = s.startProxy(n, plan[i].mode)
		if plan[i].order == atOnce {
			agents[i].End(syscall.SIGTERM)
		}
		s.awaitProxy(n)
		tr.goOn(s)
		agents[i].End(syscall.SIGTERM)
		s.cleanAgent(n)
		tr.goOn(s)
		t.Logf("%s: from kube-nft to kube-proxy (%s) by %s in %v", n.Name(), plan[i].mode, plan[i].order, time.Since(began).Round(time.Millisecond))
	}
	for _, n := range s.nodes {
		s.Answers(soon, s.client, "udp", web.atNode(n, "udp", 1), names(s.podsOf("web"))...)
	}
	s.lossless(tr, "5 nodes from kube-proxy to kube-nft and back")
}

// TestWrongOrder cleans up before the other one has programmed the node, which must
// be seen to cost connections: else TestRollout would count wrongly.
func TestWrongOrder(t *testing.T) {
	s := newSite(t, 1)
	n := s.nodes[0]
	s.createPod(n, "web")
	s.createPod(n, "shop")
	web := s.apply("web", "web", "type: NodePort")
	proxy := s.startProxy(n, "nftables")
	s.awaitProxy(n)
	s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)

	tr := s.startTraffic(s.flowsTo(web))
	proxy.End(syscall.SIGTERM)
	s.cleanProxy(n)
	agent := s.startAgent(n)
	agent.Await(soon, programmed)
	s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)
	o := tr.stop()
	t.Logf("kube-proxy cleaned up first: %v", o)
	if o.lost == 0 || o.unanswered == 0 {
		t.Errorf("the wrong order lost %d connections and %d questions; what is counted?", o.lost, o.unanswered)
	}
	tr = s.startTraffic(s.flowsTo(web))
	agent.End(syscall.SIGTERM)
	s.cleanAgent(n)
	s.startProxy(n, "nftables")
	s.awaitProxy(n)
	s.Answers(soon, s.client, "tcp", web.atNode(n, "tcp", 0), names(s.podsOf("web"))...)
	o = tr.stop()
	t.Logf("kube-nft cleaned up first: %v", o)
	if o.lost == 0 || o.unanswered == 0 {
		t.Errorf("the wrong order lost %d connections and %d questions; what is counted?", o.lost, o.unanswered)
	}
}

// seen waits until clients on a node are answered by these pods.
func (s *site) seen(n *node, to service, pods ...*pod) {
	s.t.Helper()
	for f := range families {
		s.Answers(soon, n.Namespace, "tcp", to.at(f), names(pods)...)
		s.Answers(soon, n.Namespace, "udp", to.at(f), names(pods)...)
	}
}

// needIptables skips a test with kube-proxy in iptables mode where that cannot be.
func needIptables(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("iptables-restore")
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatalf("kube-proxy in iptables mode: %v", err)
	default:
		t.Skipf("kube-proxy in iptables mode: %v; `make tools-cluster` installs it", err)
	}
}

// otherPorts are kube-nft's while kube-proxy has the usual ones.
var otherPorts = []string{"--healthz-bind-address", "0.0.0.0:10356", "--metrics-bind-address", "127.0.0.1:10349"}

// startProxy starts kube-proxy on a node.
func (s *site) startProxy(n *node, mode string) *process.Process {
	s.t.Helper()
	config := process.WriteProxyConfig(s.t, s.api.Kubeconfig(cluster.Admin), n.Name(), map[string]any{"mode": mode, "clusterCIDR": clusterCIDR})
	return process.Start(s.t, n.Namespace, programOf(s.t, cluster.Proxy), "--config", config)
}

// awaitProxy waits until kube-proxy has programmed the node in both families. Its
// /healthz says that it is well from the very beginning.
func (s *site) awaitProxy(n *node) {
	s.t.Helper()
	s.Eventually(2*soon, func() error {
		status, text, err := process.Get(n.Namespace, "http://127.0.0.1:10249/metrics")
		if err != nil || status != http.StatusOK {
			return errors.Join(err, fmt.Errorf("metrics of kube-proxy: status %d", status))
		}
		for _, f := range families {
			if !strings.Contains(text, fmt.Sprintf("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=%q} 1.", f)) {
				return fmt.Errorf("kube-proxy on %s has not programmed %s", n.Name(), f)
			}
		}
		return nil
	})
	s.Eventually(soon, func() error {
		status, text, err := process.Get(n.Namespace, healthz)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("/healthz of kube-proxy on %s: %d %s", n.Name(), status, text)
		}
		return err
	})
}

// cleanProxy lets kube-proxy remove what it has programmed, which must be all of it.
func (s *site) cleanProxy(n *node) {
	s.t.Helper()
	s.Run(n.Namespace, programOf(s.t, cluster.Proxy), "--cleanup")
	s.noTable(n, "kube-proxy")
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		if rules := s.Run(n.Namespace, save); strings.Contains(rules, "KUBE-SERVICES") || strings.Contains(rules, "KUBE-SVC") {
			s.t.Errorf("%s on %s after kube-proxy's cleanup:\n%s", save, n.Name(), rules)
		}
	}
}

// cleanAgent is the same of kube-nft.
func (s *site) cleanAgent(n *node) {
	s.t.Helper()
	s.Run(n.Namespace, process.KubeNFT(), "cleanup")
	s.noTable(n, "kube-nft")
}

func (s *site) noTable(n *node, name string) {
	s.t.Helper()
	if tables := s.Run(n.Namespace, "nft", "list", "tables"); strings.Contains(tables, " "+name+"\n") {
		s.t.Errorf("tables on %s:\n%s", n.Name(), tables)
	}
}
