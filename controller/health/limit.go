// SPDX-License-Identifier: Apache-2.0

package health

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// Limit bounds the connections of HTTP servers that share it. When there are too many,
// the one goes that has been without a request for longest: whoever opens connections
// and says nothing pushes out their own, and a probe that comes late is answered all the
// same. Servers that wait instead, as netutil.LimitListener of golang.org/x/net has them
// do, would answer nobody. Its methods may be called from several goroutines.
type Limit struct {
	max int

	mu   sync.Mutex
	open map[net.Conn]*list.Element // nil while a request is answered
	idle list.List                  // of net.Conn without a request, the longest first
}

// NewLimit returns a Limit of so many connections.
func NewLimit(max int) *Limit { return &Limit{max: max, open: make(map[net.Conn]*list.Element)} }

// ConnState is to be http.Server.ConnState of each server. To net/http a connection is
// new until the whole header of its first request has come.
func (l *Limit) ConnState(c net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if waiting := l.open[c]; waiting != nil {
		l.idle.Remove(waiting)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		l.open[c] = l.idle.PushBack(c)
	case http.StateActive:
		l.open[c] = nil
	default:
		delete(l.open, c)
	}
	if len(l.open) <= l.max || state != http.StateNew {
		return
	}
	longest := l.idle.Front().Value.(net.Conn) // c itself, if all others are being answered
	l.idle.Remove(l.open[longest])
	delete(l.open, longest)
	longest.Close()
}
