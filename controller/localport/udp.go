// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// UDP flows end after this time without a datagram, those in which the client went
// on after an answer after the longer one: the kernel's own times for tracked
// connections (nf_conntrack_proto_udp.c).
const (
	idleTime       = 30 * time.Second
	idleStreamTime = 120 * time.Second
)

// buffers are for one datagram each.
var buffers = sync.Pool{New: func() any { return new([65536]byte) }}

// udpListener is a port's UDP socket and the flows through it, by client. Relay.mu
// guards flows.
type udpListener struct {
	relay *Relay
	port  *port
	conn  *net.UDPConn
	flows map[netip.AddrPort]*flow
}

// flow is what one client sends to an endpoint, and what comes back.
type flow struct {
	conn       *net.UDPConn // to the endpoint
	client, to netip.AddrPort
	began      time.Time
	used       atomic.Int64 // when there last was a datagram, in ns since it began: the wall clock may jump
	answered   atomic.Bool
	stream     atomic.Bool
}

// listenUDP listens on a port and relays what comes.
func (r *Relay) listenUDP(p *port) (listener, error) {
	conn, err := net.ListenUDP(p.network(), net.UDPAddrFromAddrPort(p.addr()))
	if err != nil {
		return nil, err
	}
	l := &udpListener{relay: r, port: p, conn: conn, flows: make(map[netip.AddrPort]*flow)}
	r.running.Go(l.serve)
	return l, nil
}

func (l *udpListener) close() {
	l.conn.Close()
	l.keep(nil)
}

func (l *udpListener) keep(endpoints []netip.AddrPort) {
	for client, f := range l.flows {
		if !contains(endpoints, f.to) {
			f.conn.Close()
			delete(l.flows, client)
		}
	}
}

// serve passes on what clients send until the socket is closed.
func (l *udpListener) serve() {
	for {
		err := receive(l.conn, func(b []byte, client netip.AddrPort) {
			f := l.flow(client)
			if f == nil {
				return
			}
			f.touch()
			if f.answered.Load() {
				f.stream.Store(true)
			}
			if _, err := f.conn.Write(b); err != nil {
				l.end(f) // the endpoint refuses; the next datagram may find another
			}
		})
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// flow finds or makes the flow of a client; it returns nil if there is none to be
// had, and the datagram is lost.
func (l *udpListener) flow(client netip.AddrPort) *flow {
	r := l.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := l.flows[client]; f != nil {
		return f
	}
	if l.port.listener != l {
		return nil // closed just now
	}
	s, to := r.pick(l.port)
	if s == nil || !r.admit(l.port) {
		return nil
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to)) // sends nothing, and does not wait
	if err != nil {
		r.release()
		r.log.Debug("endpoint cannot be reached", "service", s.name.String(), "port", l.port.String(), "endpoint", to.String(), "err", err)
		return nil
	}
	f := &flow{conn: conn, client: client, to: to, began: time.Now()}
	l.flows[client] = f
	r.running.Go(func() {
		defer r.release()
		l.answer(f)
	})
	return f
}

// end closes a flow and forgets it.
func (l *udpListener) end(f *flow) {
	l.relay.mu.Lock()
	defer l.relay.mu.Unlock()
	f.conn.Close()
	if l.flows[f.client] == f {
		delete(l.flows, f.client)
	}
}

// answer passes on what an endpoint sends until the flow ends.
func (l *udpListener) answer(f *flow) {
	defer l.end(f)
	f.touch()
	for left := l.left(f); left > 0; left = l.left(f) {
		// Set for every wait, not for every datagram.
		if err := f.conn.SetReadDeadline(time.Now().Add(left)); err != nil {
			return
		}
		var err error
		for err == nil {
			err = receive(f.conn, func(b []byte, _ netip.AddrPort) {
				f.touch()
				f.answered.Store(true)
				_, _ = l.conn.WriteToUDPAddrPort(b, f.client) // a client that is gone is no concern
			})
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// left is how long a flow lives on without a datagram.
func (l *udpListener) left(f *flow) time.Duration {
	lives := l.relay.idle
	if f.stream.Load() {
		lives = l.relay.idleStream
	}
	return lives - (time.Since(f.began) - time.Duration(f.used.Load()))
}

// touch notes that there was a datagram.
func (f *flow) touch() { f.used.Store(int64(time.Since(f.began))) }

// receive waits for one datagram and delivers it; only then it needs a buffer.
func receive(c *net.UDPConn, deliver func(b []byte, from netip.AddrPort)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil // reading tells, and waits if need be
	})
	if err != nil {
		return err
	}
	b := buffers.Get().(*[65536]byte)
	defer buffers.Put(b)
	n, from, err := c.ReadFromUDPAddrPort(b[:])
	if err != nil {
		return err
	}
	deliver(b[:n], from)
	return nil
}
