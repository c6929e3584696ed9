// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kube-nft/kube-nft/tests/cluster"
	"github.com/kube-nft/kube-nft/tests/netlab"
	"github.com/kube-nft/kube-nft/tests/process"
)

// twins are two sites and the API that both read.
type twins struct {
	*netlab.T
	t            *testing.T
	api          *cluster.Cluster
	ours, theirs *site
	kubeconfig   string
	ourProxy     *process.Process
	theirProxy   *process.Process
	objects      map[string]any // what is written, by path
	zone         string
	sentinel     plan
	generation   int
	settings     settings
	probes       int // how many were compared
}

// soon is patience with what takes milliseconds, on a busy machine.
const soon = 30 * time.Second

// user is who both proxies are: the account that the API server has a role for.
const user = "system:kube-proxy"

var apiAddr = netip.MustParseAddr("192.0.2.2")

// newTwins returns twins whose proxies run and have programmed what there is: every
// watch has been seen to work.
func newTwins(t *testing.T, c settings) *twins {
	t.Helper()
	w := &twins{T: netlab.NewT(t), t: t, objects: make(map[string]any)}
	control, err := newControl(w.T)
	w.Must(err)
	w.ours, w.theirs = newSite(t, "kube-nft", 1, control), newSite(t, "kube-proxy", 2, control)
	w.api = cluster.Run(t, cluster.Config{
		Listen:  apiAddr,
		Users:   []cluster.User{{Name: user}},
		Command: cluster.InNamespace(control.Path()),
		Dial:    control.DialContext,
	})
	w.kubeconfig = w.api.Kubeconfig(user)
	w.createNode()
	w.createSentinel()

	w.startProxies(c)
	return w
}

// startProxies starts both, and waits until both have done their work.
func (w *twins) startProxies(c settings) {
	w.t.Helper()
	w.settings = c
	paths, err := cluster.Build(w.t.Context(), slog.Default(), cluster.Proxy)
	w.Must(err)
	w.ourProxy = w.ours.runOurs(w.t, w.kubeconfig, c)
	// Whatever happens to its Node afterwards, kube-proxy may stay without a zone
	// that it missed when it started (F13): then only another start helps.
	for try := 1; ; try++ {
		w.theirProxy = w.theirs.runTheirs(w.t, paths[0], w.kubeconfig, c)
		err := netlab.Poll(10*time.Second, w.wakeTheirs)
		if err == nil {
			return
		}
		if try == maxStarts {
			w.t.Fatalf("kube-proxy was started %d times: %v", try, err)
		}
		w.theirProxy.End(syscall.SIGKILL)
	}
}

// maxStarts is how often kube-proxy is started until it knows its Node.
const maxStarts = 5

// restartOurs has another kube-nft take over.
func (w *twins) restartOurs() {
	w.t.Helper()
	w.ourProxy.End(syscall.SIGKILL)
	w.ourProxy = w.ours.runOurs(w.t, w.kubeconfig, w.settings)
}

// restart has others take over, with other settings.
func (w *twins) restart(c settings) {
	w.t.Helper()
	w.ourProxy.End(syscall.SIGKILL)
	w.theirProxy.End(syscall.SIGKILL)
	w.startProxies(c)
}

func (w *twins) sites() []*site { return []*site{w.ours, w.theirs} }

func (w *twins) createNode() {
	w.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"}}}
	node.Spec.PodCIDRs = []string{"10.244.0.0/23", "fd00:10:244::/63"} // of a and b
	node.Spec.PodCIDR = node.Spec.PodCIDRs[0]
	for _, a := range nodeAddrs {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	w.zone = "zone-a"
	w.do(http.MethodPost, nodesPath, node, nil)
}

// setZone moves the node.
func (w *twins) setZone(zone string) {
	w.t.Helper()
	w.zone = zone
	w.do(http.MethodPatch, nodesPath+"/"+nodeName,
		map[string]any{"metadata": map[string]any{"labels": map[string]any{corev1.LabelTopologyZone: zone}}}, nil)
}

// wakeTheirs makes kube-proxy look at what it may have missed while it started: the
// Node, which may come between reading it and watching it (F13), and ServiceCIDRs,
// which it programs in a full pass only (F4). A change of zone is a cause for one.
func (w *twins) wakeTheirs() error {
	w.t.Helper()
	for _, zone := range []string{"zone-b", "zone-a"} {
		w.setZone(zone)
		if err := w.trySettle(3 * time.Second); err != nil {
			return err
		}
	}
	for _, addr := range (&plan{index: 251}).clusterIPs() { // nobody's
		_, err := w.theirs.node.Ask(w.t.Context(), "tcp", netip.AddrPortFrom(addr, 80), netlab.Timeout(200*time.Millisecond))
		if !errors.Is(err, netlab.ErrTimeout) {
			return fmt.Errorf("kube-proxy has no ServiceCIDR: %w", err)
		}
	}
	return nil
}

// settle waits until both proxies have programmed all that has been written so far.
// Services, slices and the Node come over a watch each, in order: a change of each
// that comes last has a visible effect.
func (w *twins) settle() {
	w.t.Helper()
	w.Must(w.trySettle(soon))
}

func (w *twins) trySettle(within time.Duration) error {
	w.t.Helper()
	w.generation++
	w.writeSentinel()
	for f := range families {
		for _, s := range w.sites() {
			if err := netlab.Poll(within, func() error { return w.askSentinel(s, f) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// The sentinel has a port, a target port and an endpoint that depend on the
// generation, and one endpoint in each zone.
func (w *twins) createSentinel() {
	w.sentinel = plan{name: "sentinel", index: 250}
	w.writeSentinel()
}

func (w *twins) writeSentinel() {
	w.t.Helper()
	w.sentinel.ports = []port{{protocol: corev1.ProtocolTCP, number: w.sentinelPort(), target: w.sentinelTarget()}}
	w.sentinel.slices = [][]endpoint{{{pod: "a", zones: []string{"zone-a"}}, {pod: "b", zones: []string{"zone-b"}}}}
	w.write(&w.sentinel)
}

func (w *twins) sentinelPort() int32 { return int32(1000 + w.generation%1000) }

func (w *twins) sentinelTarget() int32 { return []int32{8080, 9090}[w.generation%2] }

// askSentinel returns an error unless the sentinel answers as it does in this
// generation.
func (w *twins) askSentinel(s *site, f int) error {
	w.t.Helper()
	w.Must(w.ourProxy.Gone(), w.theirProxy.Gone())
	at := netip.AddrPortFrom(w.sentinel.clusterIPs()[f], uint16(w.sentinelPort()))
	want := fmt.Sprintf("%s:%d", map[string]string{"zone-a": "a", "zone-b": "b"}[w.zone], w.sentinelTarget())
	for range 16 { // each of several endpoints may answer as wanted now and then
		a, err := s.node.Ask(w.t.Context(), "tcp", at, netlab.Timeout(200*time.Millisecond))
		if err == nil && a.Server != want {
			err = fmt.Errorf("%s answers, want %s", a.Server, want)
		}
		if err != nil {
			return fmt.Errorf("%s has not settled: %w", s.name, err)
		}
	}
	return nil
}

// do asks the API as Admin and ends the test if it refuses.
func (w *twins) do(method, path string, in, out any) {
	w.t.Helper()
	w.Must(w.api.Do(w.t.Context(), method, path, in, out))
}
