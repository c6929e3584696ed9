// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// dialTimeout is how long an endpoint may take to accept.
const dialTimeout = 5 * time.Second

// acceptPause is how long accepting rests after an error, doubling: most of them
// are for want of descriptors, which takes a while to pass.
const (
	acceptPause    = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// tcpListener is a port's TCP socket.
type tcpListener struct{ *net.TCPListener }

func (l tcpListener) close()                { l.Close() }
func (l tcpListener) keep([]netip.AddrPort) {}

// listenTCP listens on a port and relays what comes.
func (r *Relay) listenTCP(p *port) (listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false) // there is one path to loopback, and splice wants TCP
	l, err := c.Listen(r.ctx, p.network(), p.addr().String())
	if err != nil {
		return nil, err
	}
	tcp := l.(*net.TCPListener)
	r.running.Go(func() { r.accept(p, tcp) })
	return tcpListener{tcp}, nil
}

// accept takes connections until the listener is closed.
func (r *Relay) accept(p *port, l *net.TCPListener) {
	pause := acceptPause
	for {
		conn, err := l.AcceptTCP()
		switch {
		case err == nil:
			pause = acceptPause
		case errors.Is(err, net.ErrClosed):
			return
		default:
			r.log.Debug("accept on localhost", "port", p.String(), "err", err)
			select {
			case <-r.ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		}
		if !r.admit(p) {
			abort(conn)
			continue
		}
		r.running.Go(func() {
			defer r.release()
			r.connect(p, conn)
		})
	}
}

// connect relays a connection to an endpoint until both sides have ended it. What
// goes wrong on one side is a reset on the other.
func (r *Relay) connect(p *port, client *net.TCPConn) {
	r.mu.Lock()
	s, to := r.pick(p)
	r.mu.Unlock()
	if s == nil {
		abort(client)
		return
	}
	d := net.Dialer{Timeout: dialTimeout}
	endpoint, err := d.DialTCP(s.ctx, "tcp", netip.AddrPort{}, to)
	if err != nil {
		r.log.Debug("endpoint does not accept", "service", s.name.String(), "port", p.String(), "endpoint", to.String(), "err", err)
		abort(client)
		return
	}
	stop := context.AfterFunc(s.ctx, func() { abort(client, endpoint) })
	defer stop()
	var back sync.WaitGroup
	back.Go(func() { pass(client, endpoint) })
	pass(endpoint, client)
	back.Wait()
	client.Close()
	endpoint.Close()
}

// pass copies one direction to its end, and passes the end on. The kernel does the
// copying: io.Copy between TCP sockets is splice(2).
func pass(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		abort(to, from)
	}
}

// abort ends connections by a reset, so that nobody takes a broken connection for a
// complete one.
func abort(conns ...*net.TCPConn) {
	for _, c := range conns {
		_ = c.SetLinger(0) // fails if it is closed already
		c.Close()
	}
}
