// SPDX-License-Identifier: Apache-2.0

package program

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kube-nft/kube-nft/tests/compare/shape"
	"github.com/kube-nft/kube-nft/tests/compare/site"
)

// restart kills the proxy, makes a change, and starts it again on its tables.
func (v *visit) restart(ctx context.Context) error {
	w, err := startWatch(v.api, v.node, 2, v.versions)
	if err != nil {
		return err
	}
	defer w.close()
	if err := v.proxy.Kill(); err != nil {
		return err
	}
	v.takeLockQuietly()
	*w.version++
	x := w.expect()
	if _, err := w.write(ctx, *w.version); err != nil {
		return err
	}
	load, err := startLoad(v.node, v.shape)
	if err != nil {
		return err
	}
	if v.proxy, err = v.node.Start(ctx, v.peer); err != nil {
		return errors.Join(err, load.close())
	}
	at, err := x.await(ctx, min(v.limit, 2*v.startTook+20*time.Second))
	cpu := cpuTime(v.proxy.PID())
	asked, lost, failed := load.end()
	row := v.row("restart", "", "first-packet", "s")
	if errors.Is(err, errUnseen) {
		row.Note = err.Error()
		v.add(row)
	} else if err != nil {
		return err
	} else {
		v.add(row, at.Sub(v.proxy.Began).Seconds())
	}
	v.add(v.row("restart", "", "cpu", "s"), cpu.Seconds())
	v.add(v.row("restart", "", "asked", "1"), float64(asked))
	v.add(v.row("restart", "", "lost", "1"), float64(lost))
	v.settle(ctx)
	v.takeLock("restart")
	return errors.Join(failed, v.proxy.Gone())
}

// load asks Services at random all the time, and counts answers.
type load struct {
	s        *socket
	stop     chan struct{}
	done     sync.WaitGroup
	asked    int
	answered atomic.Int64
	err      error
}

const (
	loadEvery = 5 * time.Millisecond
	loadSize  = 4
	loadGrace = 500 * time.Millisecond // for the last answers
)

func startLoad(n *site.Node, sh shape.Shape) (*load, error) {
	s, err := openSocket(n.Client, n.Inside)
	if err != nil {
		return nil, err
	}
	l := &load{s: s, stop: make(chan struct{})}
	go s.listen(func(p seen, _ time.Time) {
		if _, ok := sh.ServiceAt(p.from.Addr()); ok && p.flags&(flagSYN|flagACK) == flagSYN|flagACK {
			l.answered.Add(1)
		}
	})
	l.done.Go(func() {
		tick := time.NewTicker(loadEvery)
		defer tick.Stop()
		to := make([]netip.AddrPort, loadSize)
		for {
			for i := range to {
				to[i] = sh.Frontend(rand.IntN(sh.Services))
			}
			if l.err = s.ask(to...); l.err != nil {
				return
			}
			l.asked += len(to)
			select {
			case <-tick.C:
			case <-l.stop:
				return
			}
		}
	})
	return l, nil
}

// end returns how many questions there were, and how many without an answer.
func (l *load) end() (asked, lost int, err error) {
	close(l.stop)
	l.done.Wait()
	time.Sleep(loadGrace)
	err = errors.Join(l.err, l.s.close())
	return l.asked, l.asked - int(l.answered.Load()), err
}

func (l *load) close() error {
	_, _, err := l.end()
	return err
}
