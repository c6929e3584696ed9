// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// TestRollingUpdate: the pods behind every kind of Service are replaced one by one,
// as a Deployment does it, while clients ask at every frontend: no question is
// refused or lost. A pod ends as soon as the tables do not name it any more.
func TestRollingUpdate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*corev1.Service)
	}{
		{"A2.2 policies Cluster", func(*corev1.Service) {}},
		{"A2.3 A3.2 external policy Local", func(s *corev1.Service) { externalLocal(s) }},
		{"A2.3 A3.1 internal policy Local", func(s *corev1.Service) { internalLocal(s) }},
		{"A3.12 session affinity", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }},
		{"A3.12 session affinity, policies Local", func(s *corev1.Service) {
			s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
			internalLocal(externalLocal(s))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := &rollout{cluster: newCluster(t), service: everywhere("web", 1)}
			tt.change(r.service)
			r.start(t, 0, 0)
			r.start(t, 0, 1)
			r.write(t)
			r.run(t, "--cluster-cidr", clusterCIDR)
			stop := r.load(t)
			const versions = 5
			for version := range versions {
				for replica := range r.replicas() {
					r.replace(t, version, replica)
				}
			}
			tally := stop()
			if tally.Failed() > 0 || tally.Answered() == 0 {
				t.Errorf("%v", tally)
			}
			t.Logf("%d questions while %d pods were replaced, answered by %d pods", tally.Answered(), versions*2, len(tally.Servers))
		})
	}
}

// rollout is a Service whose pods come in versions, each with one on this node and
// one on the other.
type rollout struct {
	*cluster
	service *corev1.Service
	pods    []*versionedPod // that EndpointSlices name
}

// versionedPod is a pod that lives on a host under a port of its own.
type versionedPod struct {
	*host
	version, replica int
	terminating      bool
	servers          []*netlab.Server
}

func (r *rollout) replicas() int { return 2 }

// start starts a pod.
func (r *rollout) start(t *testing.T, version, replica int) {
	t.Helper()
	hosts := [][]*host{{r.a, r.r}, {r.b, r.s}}
	p := &versionedPod{host: hosts[version%2][replica], version: version, replica: replica}
	name := fmt.Sprintf("%s.v%d", p.Name(), version)
	for f := range families {
		for _, network := range networks[:2] {
			p.servers = append(p.servers, r.Serve(p.Namespace, network, p.at(family(f), p.port()), name))
		}
	}
	r.pods = append(r.pods, p)
}

func (p *versionedPod) port() uint16 { return uint16(9000 + p.version) }

// replace replaces a pod of a version with one of the next: that starts and becomes
// ready, the old one is told to end, is not named any more, and ends.
func (r *rollout) replace(t *testing.T, version, replica int) {
	t.Helper()
	r.start(t, version+1, replica)
	r.write(t)
	var old *versionedPod
	for _, p := range r.pods {
		if p.version == version && p.replica == replica {
			old = p
		}
	}
	old.terminating = true
	r.write(t)
	r.programmed(t)
	r.pods = removed(r.pods, old)
	r.write(t)
	r.programmed(t)
	for _, s := range old.servers {
		s.Close()
	}
}

func removed(all []*versionedPod, gone *versionedPod) (rest []*versionedPod) {
	for _, p := range all {
		if p != gone {
			rest = append(rest, p)
		}
	}
	return rest
}

// write writes the Service and a slice for each pod and family.
func (r *rollout) write(t *testing.T) {
	t.Helper()
	objects := []any{r.service}
	for _, p := range r.pods {
		for _, f := range families {
			one := slice(r.service, f, p.host)
			one.Name += fmt.Sprintf("-v%d-%d", p.version, p.replica)
			for i := range one.Ports {
				one.Ports[i].Port = new(int32(p.port()))
			}
			if p.terminating {
				one.Endpoints[0].Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
			}
			objects = append(objects, one)
		}
	}
	r.cluster.write(t, "web.yaml", objects...)
}

// load asks at every frontend from everywhere until it is stopped.
func (r *rollout) load(t *testing.T) (stop func() netlab.Tally) {
	t.Helper()
	r.lossless(t)
	var dsts []netip.AddrPort
	for _, f := range families {
		dsts = append(dsts, netip.AddrPortFrom(clusterIP(1)[f], 80))
		for _, dst := range external(1, f) {
			dsts = append(dsts, dst)
		}
	}
	// No pod of the other node: what it sends to itself is that node's to masquerade.
	from := []*host{r.client, r.b, r.node}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	done := make(chan netlab.Tally, 1)
	go func() {
		done <- netlab.Many(ctx, math.MaxInt, 4, func(i int) (netlab.Answer, error) {
			time.Sleep(time.Millisecond) // leave some of the machine to what is tested
			dst, network := dsts[i%len(dsts)], networks[i/len(dsts)%2]
			h := from[i/len(dsts)/2%len(from)]
			a, err := h.ask(network, dst, patience, netlab.Lossless())
			if err != nil {
				t.Logf("%v", err)
			}
			return a, err
		})
	}()
	return func() netlab.Tally {
		cancel()
		return <-done
	}
}
