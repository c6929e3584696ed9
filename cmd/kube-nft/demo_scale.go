// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kube-nft/kube-nft/controller/model"
)

const (
	phaseLength = 900 * time.Millisecond // how long each state is watched
	quiet       = 200 * time.Millisecond // without an answer a pod counts as gone
	followMax   = 10 * time.Second       // until a change must be seen
)

// scaling is what happened while an endpoint left and came back.
type scaling struct {
	route route
	pod   *demoPod
	flow  *flow
	// phases are the times before, without the endpoint, and with it again.
	phases [3]period
	// left and joined are the last connection to the pod, and the first one after
	// its return, from the moment when the manifest was renamed.
	left, joined time.Duration
	commits      [2]time.Duration // that made it leave and join; 0 is unknown
}

// period is a span of time; an end that is zero is still to come.
type period struct{ begin, end time.Time }

func (p period) contains(t time.Time) bool { return !t.Before(p.begin) && t.Before(p.end) }

// scale takes an endpoint away and brings it back while connections flow. Once
// nobody reaches it any more its pod is shut down: a connection that was still
// sent there would fail.
func (d *demonstration) scale(ctx context.Context) error {
	r, ok := d.scalable()
	if !ok {
		return nil // the manifests have no TCP Service with two endpoints
	}
	sc := &scaling{route: r, pod: r.service.pods[1]}
	edit, err := editManifest(d.copy, r.service.Name, sc.pod)
	if err != nil || edit == nil {
		return err // nil: the endpoint is spread over files, or in a List
	}
	d.screen.heading("Scale while connections flow: %s leaves and comes back", sc.pod.name)
	sc.flow = startFlow(ctx, r)
	defer sc.flow.stop()
	if err := d.leave(ctx, sc, edit); err != nil {
		return err
	}
	if err := d.join(ctx, sc, edit); err != nil {
		return err
	}
	sc.flow.stop()
	return d.showScaling(sc)
}

// scalable chooses what to scale: a Service over TCP, where no connection is
// tied to an earlier one by its ports, with at least two endpoints.
func (d *demonstration) scalable() (route, bool) {
	for _, r := range d.clusterIPRoutes() {
		if r.port.Protocol == model.TCP && len(r.service.pods) >= 2 {
			return r, true
		}
	}
	return route{}, false
}

// leave watches, takes the endpoint out of the manifest, and shuts its pod down.
func (d *demonstration) leave(ctx context.Context, sc *scaling, e *edit) error {
	sc.phases[0].begin = time.Now()
	d.screen.progress("%d endpoints", len(sc.route.service.pods))
	if err := wait(ctx, phaseLength); err != nil {
		return err
	}
	d.screen.progress("%s leaves", sc.pod.name)
	before := d.proxy.log.committed()
	renamed, err := e.replace(e.without)
	if err != nil {
		return err
	}
	sc.phases[0].end = renamed
	// So often that it would be a miracle if none of them met the pod.
	often := 5 * len(sc.route.service.pods)
	last, err := sc.flow.awaitGone(ctx, sc.pod.name, often, renamed)
	if err != nil {
		return err
	}
	sc.left, sc.commits[0] = last.Sub(renamed), d.proxy.log.committed()-before
	return sc.pod.shutDown()
}

// join watches, starts the pod, and puts the endpoint back.
func (d *demonstration) join(ctx context.Context, sc *scaling, e *edit) error {
	sc.phases[1].begin = time.Now()
	d.screen.progress("%s is shut down", sc.pod.name)
	if err := wait(ctx, phaseLength); err != nil {
		return err
	}
	d.screen.progress("%s comes back", sc.pod.name)
	if err := sc.pod.serve(d.cluster); err != nil {
		return err
	}
	before := d.proxy.log.committed()
	renamed, err := e.replace(e.original)
	if err != nil {
		return err
	}
	sc.phases[1].end = renamed
	first, err := sc.flow.awaitBack(ctx, sc.pod.name, renamed)
	if err != nil {
		return err
	}
	sc.joined, sc.commits[1] = first.Sub(renamed), d.proxy.log.committed()-before
	sc.phases[2].begin = first
	if err := wait(ctx, phaseLength); err != nil {
		return err
	}
	sc.phases[2].end = time.Now()
	return nil
}

// showScaling shows who answered in each phase; failures are an error.
func (d *demonstration) showScaling(sc *scaling) error {
	s, pods := d.screen, sc.route.service.pods
	var phases []map[string]int
	for _, p := range sc.phases {
		phases = append(phases, sc.flow.answers(p))
	}
	s.sideBySide([]string{"before", "without " + sc.pod.name, "with it again"}, pods, phases)
	sent, failed, example := sc.flow.outcome()
	d.connections += sent - failed
	s.line("")
	s.line("%s connections, %d failed; %s was shut down while it was away.", count(sent), failed, sc.pod.name)
	if failed > 0 {
		return fmt.Errorf("%d of %d connections failed while %s was scaled, the first: %w", failed, sent, sc.route.service.Name, example)
	}
	s.line("last connection to it    %s after the file was renamed%s", duration(sc.left), inKernel(sc.commits[0]))
	s.line("first one to it again    %s after the file was renamed%s", duration(sc.joined), inKernel(sc.commits[1]))
	s.line("The rest is a wait for the file to settle, which an API server does not need.")
	return nil
}

// inKernel tells how long a transaction took, if that is known.
func inKernel(commit time.Duration) string {
	if commit == 0 {
		return ""
	}
	return ", " + duration(commit) + " to commit"
}

// wait waits, or returns why the demo ends.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

var errNotFollowed = errors.New("kube-nft did not follow the change of the manifest")
