// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// watch asks one watched Service every millisecond, and sees in the pods where each
// question arrives.
type watch struct {
	api     *site.API
	service int
	version *int // of the endpoint that was written last
	asking  *socket
	pods    *socket
	want    atomic.Pointer[want]
	stop    chan struct{}
	done    sync.WaitGroup
}

// versions are those of all watched Services, as the API server has them. They only
// grow: what one proxy was shown last is not what the next is to be shown first.
type versions [shape.Watched]int

// want is an endpoint that is waited for.
type want struct {
	addr netip.Addr
	once sync.Once
	at   chan time.Time // when the first packet reached it
}

const watchEvery = time.Millisecond

func startWatch(api *site.API, n *site.Node, service int, all *versions) (*watch, error) {
	w := &watch{api: api, service: service, version: &all[service], stop: make(chan struct{})}
	var err error
	if w.asking, err = openSocket(n.Client, n.Inside); err != nil {
		return nil, err
	}
	if w.pods, err = openSocket(n.Pods, netip.IPv4Unspecified()); err != nil {
		return nil, errors.Join(err, w.asking.close())
	}
	go w.asking.listen(func(seen, time.Time) {})
	go w.pods.listen(w.hear)
	w.done.Go(func() { favoured(w.ask) })
	return w, nil
}

func (w *watch) ask() {
	to := shape.WatchedFrontend(w.service)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		_ = w.asking.ask(to) // one that is lost is followed by others
		select {
		case <-tick.C:
		case <-w.stop:
			return
		}
	}
}

func (w *watch) hear(p seen, at time.Time) {
	if x := w.want.Load(); x != nil && p.to.Addr() == x.addr && p.flags == flagSYN {
		x.once.Do(func() { x.at <- at })
	}
}

func (w *watch) close() error {
	close(w.stop)
	w.done.Wait()
	return errors.Join(w.asking.close(), w.pods.close())
}

// errUnseen: no packet reached the endpoint in time.
var errUnseen = errors.New("the change is not seen")

// lag is how long a change took.
type lag struct {
	packet time.Duration // from the beginning of its write until the first packet met it
	write  time.Duration // of that until the API server had answered
}

// change gives the watched Service a new endpoint, beside the one that it has or in
// place of it, and waits for the first packet that reaches it.
func (w *watch) change(ctx context.Context, keep bool, limit time.Duration) (lag, error) {
	*w.version++
	endpoints := []int{*w.version}
	if keep {
		endpoints = append(endpoints, *w.version-1)
	}
	x := w.expect()
	began := time.Now()
	write, err := w.write(ctx, endpoints...)
	if err != nil {
		return lag{}, err
	}
	at, err := x.await(ctx, limit)
	return lag{at.Sub(began), write}, err
}

// expect begins to look for the endpoint of the latest version.
func (w *watch) expect() *want {
	x := &want{addr: shape.WatchedEndpoint(w.service, *w.version), at: make(chan time.Time, 1)}
	w.want.Store(x)
	return x
}

// await waits for the first packet at the endpoint.
func (x *want) await(ctx context.Context, limit time.Duration) (time.Time, error) {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case at := <-x.at:
		return at, nil
	case <-timeout.C:
		return time.Time{}, fmt.Errorf("%w after %v", errUnseen, limit.Round(100*time.Millisecond))
	case <-ctx.Done():
		return time.Time{}, context.Cause(ctx)
	}
}

// write writes the watched Service's endpoints, and returns how long that took.
func (w *watch) write(ctx context.Context, versions ...int) (time.Duration, error) {
	request, err := w.api.PutRequest(shape.WatchedSlice(w.service, versions...))
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = w.api.Send(ctx, watchedConnection, request)
	return time.Since(began), err
}

// watchedConnection is that of the API server's over which watched changes go; the
// churn has the others.
const watchedConnection = 0
