// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/peer"
	"github.com/kube-nft/kube-nft/tests/compare/result"
	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// visit is one proxy on a node of its own, from its start to the removal of its tables.
type visit struct {
	*collector
	plan  plan
	limit time.Duration
	peer  peer.Peer
	shape shape.Shape
	api   *site.API
	node  *site.Node
	proxy *site.Running
	crowd *crowd
	lock  *lockProber // nil if there is no such lock
	// versions are what the API server has, of all visits.
	versions *versions
	// startTook is how long it was until all Services carried packets.
	startTook time.Duration
}

// errSlow: the proxy took longer than the limit.
var errSlow = errors.New("slower than the limit")

// run measures all that is planned. What goes wrong with the proxy ends the visit, and
// is noted; errors are those of everybody else.
func (v *visit) run(ctx context.Context) (err error) {
	v.log.Info("starting", "proxy", v.peer.Name, "shape", v.shape.Name)
	if v.node, err = v.api.NewNode(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.node.Close()) }()
	if v.crowd, err = newCrowd(v.node, v.shape); err != nil {
		return err
	}
	defer v.crowd.close()
	if v.peer.Netfilter() {
		if v.lock, err = probeLock(v.node.Router); err != nil {
			return err
		}
		defer v.lock.close()
	}
	for _, step := range []struct {
		section string
		wanted  func() bool // by then
		f       func(context.Context) error
	}{
		{"start", func() bool { return true }, v.start},
		{"idle", func() bool { return v.plan.idle > 0 }, v.idle},
		{"change", func() bool { return v.plan.changes > 0 }, v.changes},
		{"churn", func() bool { return v.plan.churn > 0 }, v.churn},
		{"restart", func() bool { return v.plan.restart }, v.restart},
		{"memory", func() bool { return true }, v.tables},
	} {
		if !step.wanted() {
			continue
		}
		if err := step.f(ctx); err != nil {
			return v.explain(ctx, step.section, err)
		}
	}
	return nil
}

// explain notes an error that is about the proxy, and returns any other.
func (v *visit) explain(ctx context.Context, section string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errSlow) {
		return err // it has been noted
	}
	v.skip(result.Skip{Section: section, Proxy: v.peer.Name, Shape: v.shape.Name, What: "this and what follows", Why: err.Error()})
	return nil
}

func (v *visit) row(section, variant, metric, unit string) result.Row {
	return of(v.peer, v.shape, section, variant, metric, unit)
}

// sleep returns early if ctx ends.
func (v *visit) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// takeLock adds what the lock's prober has found since the last time.
func (v *visit) takeLock(section string) {
	if v.lock == nil {
		v.skip(result.Skip{Section: section, Proxy: v.peer.Name, What: "lock-hold", Why: "its tables are not nftables', and behind no such lock"})
		return
	}
	seconds, err := v.lock.take()
	if err != nil {
		v.skip(result.Skip{Section: section, Proxy: v.peer.Name, Shape: v.shape.Name, What: "lock-hold", Why: err.Error()})
		return
	}
	if len(seconds) > 0 {
		v.add(v.row(section, "", "lock-hold", "s"), seconds...)
	}
}

// takeLockQuietly forgets what the lock's prober has found while nothing was measured.
func (v *visit) takeLockQuietly() {
	if v.lock != nil {
		_, _ = v.lock.take() // an error stays and is told later
	}
}
