// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// defaultTimeout bounds a question that says nothing else. TCP sends what was lost
// again after one second, which a busy machine must survive.
const defaultTimeout = 3 * time.Second

// options are what Option functions set.
type options struct {
	source   netip.Addr
	port     uint16
	timeout  time.Duration
	lossless bool
}

// An Option changes how Ask and Dial connect.
type Option func(*options)

// From sets the source address.
func From(addr netip.Addr) Option { return func(o *options) { o.source = addr.Unmap() } }

// FromPort sets the source port. The port may be used again at once after the
// connection is closed.
func FromPort(port uint16) Option { return func(o *options) { o.port = port } }

// Timeout sets how long to wait for a connection, and then for each answer,
// instead of three seconds. For Ask it bounds the whole.
func Timeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// Conn is a connection to a Server, for clients that ask more than once. One
// goroutine at a time may ask. For SCTP, Read and Write are about raw packets.
type Conn struct {
	net.Conn
	network  string
	op       string // for errors
	timeout  time.Duration
	lossless bool
	greeted  bool         // TCP: the answer to the connection has been read
	sctp     *association // SCTP only
}

// DialContext is Dial for those who have addresses as text, such as net/http.
func (n *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	return n.Dial(ctx, network, to)
}

// Dial connects to a server from inside the namespace. The connection belongs
// to the caller and keeps the namespace alive until it is closed.
func (n *Namespace) Dial(ctx context.Context, network string, dst netip.AddrPort, opts ...Option) (*Conn, error) {
	dst = plain(dst)
	o := options{timeout: defaultTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	op := fmt.Sprintf("ask %s %s in %s", network, dst, n.name)
	c, err := n.connect(ctx, network, dst, o)
	if err != nil {
		return nil, explain(op, err)
	}
	conn := &Conn{Conn: c, network: network, op: op, timeout: o.timeout, lossless: o.lossless}
	if network == "sctp" {
		conn.sctp = newAssociation(c.(*net.IPConn), o.port, dst.Port())
	}
	return conn, nil
}

// Ask asks a server once, from inside the namespace, over a connection of its
// own. A UDP datagram is sent once.
func (n *Namespace) Ask(ctx context.Context, network string, dst netip.AddrPort, opts ...Option) (Answer, error) {
	begin := time.Now()
	c, err := n.Dial(ctx, network, dst, opts...)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		// Closing resets: no TIME_WAIT holds the port, and tens of thousands
		// of questions do not run out of ports.
		if err := tcp.SetLinger(0); err != nil {
			return Answer{}, explain(c.op, err)
		}
	}
	c.timeout -= time.Since(begin)
	a, err := c.Ask(ctx)
	a.Took = time.Since(begin)
	if err == nil && c.lossless {
		err = c.madeGood(a.Took)
	}
	return a, err
}

// Ask returns the next answer: for TCP the first is that to the connection
// itself, for each other one a request is sent.
func (c *Conn) Ask(ctx context.Context) (Answer, error) {
	begin := time.Now()
	if err := c.SetDeadline(earlier(ctx, begin.Add(c.timeout))); err != nil {
		return Answer{}, explain(c.op, err)
	}
	stop := onCancel(ctx, c.SetDeadline)
	defer stop()
	s, err := c.exchange()
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Answer{}, explain(c.op, c.withCause(err))
	}
	a, err := parseAnswer(s)
	a.Took = time.Since(begin)
	return a, err
}

// exchange sends a request, if one is due, and returns the line that follows.
func (c *Conn) exchange() (string, error) {
	if c.sctp != nil {
		return c.sctp.exchange()
	}
	if c.greeted || c.network != "tcp" {
		if _, err := c.Write([]byte("?\n")); err != nil {
			return "", err
		}
	}
	var line []byte
	buf := make([]byte, 256)
	for len(line) == 0 || line[len(line)-1] != '\n' {
		n, err := c.Read(buf)
		if err != nil {
			return "", err
		}
		line = append(line, buf[:n]...)
	}
	c.greeted = true
	return string(line), nil
}

// earlier returns the deadline of the context or the given one.
func earlier(ctx context.Context, t time.Time) time.Time {
	if d, ok := ctx.Deadline(); ok && d.Before(t) {
		return d
	}
	return t
}

// onCancel lets what waits under a deadline fail when the context is cancelled.
func onCancel(ctx context.Context, setDeadline func(time.Time) error) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = setDeadline(time.Unix(1, 0)) })
}
