// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
)

// A Server answers each request with one line: its name and the source address
// that it saw. A TCP connection gets one on accept and one more for each line
// it sends, until the client closes it; a UDP datagram and an SCTP INIT get one
// each.
type Server struct {
	name      string
	network   string
	addr      netip.AddrPort
	namespace *Namespace

	listener io.Closer
	count    atomic.Int64
	wg       sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{} // accepted and open
}

// Serve starts a server in the namespace. The network is "tcp", "udp" or
// "sctp"; the family is that of the address. Port 0 lets the kernel choose
// (not for SCTP). UDP and SCTP need a specific address, since the answer has to
// come from the address that was asked.
func (n *Namespace) Serve(network string, addr netip.AddrPort, name string) (*Server, error) {
	addr = plain(addr)
	op := fmt.Sprintf("serve %s %s in %s", network, addr, n.name)
	if name == "" || strings.ContainsAny(name, " \n") {
		return nil, fmt.Errorf("%s: invalid name %q", op, name)
	}
	if network != "tcp" && addr.Addr().IsUnspecified() {
		return nil, fmt.Errorf("%s: not a specific address", op)
	}
	s := &Server{name: name, network: network, addr: addr, namespace: n, conns: make(map[net.Conn]struct{})}
	var loop func()
	err := n.Do(func() (err error) {
		loop, err = s.listen()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errors.Join(fmt.Errorf("%s: %w", op, ErrClosed), s.listener.Close())
	}
	n.servers[s] = struct{}{}
	s.wg.Go(loop)
	return s, nil
}

// listen opens the socket, on the calling thread, and returns the function
// that serves it.
func (s *Server) listen() (loop func(), err error) {
	family := "6"
	if s.addr.Addr().Is4() {
		family = "4"
	}
	switch s.network {
	case "tcp":
		l, err := net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(s.addr))
		if err != nil {
			return nil, err
		}
		s.listener, s.addr = l, plain(l.Addr().(*net.TCPAddr).AddrPort())
		return func() { s.accept(l) }, nil
	case "udp":
		c, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(s.addr))
		if err != nil {
			return nil, err
		}
		s.listener, s.addr = c, plain(c.LocalAddr().(*net.UDPAddr).AddrPort())
		return func() { s.receive(c) }, nil
	case "sctp":
		c, err := net.ListenIP("ip"+family+":132", &net.IPAddr{IP: s.addr.Addr().AsSlice()})
		if err != nil {
			return nil, err
		}
		s.listener = c
		return func() { s.receiveSCTP(c) }, nil
	default:
		return nil, net.UnknownNetworkError(s.network)
	}
}

// accept serves TCP until the listener is closed.
func (s *Server) accept(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the connection was aborted before it was accepted
		}
		if s.track(c) {
			s.wg.Go(func() { s.converse(c) })
		}
	}
}

// track remembers an accepted connection, or closes it if it came too late.
func (s *Server) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// converse answers on a TCP connection until the peer ends it.
func (s *Server) converse(c *net.TCPConn) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if n, err := sentAgain(c); err == nil { // it is closed already if the server is
			s.namespace.sentAgain.Add(int64(n))
		}
		c.Close()
	}()
	answer := []byte(line(s.name, plain(c.RemoteAddr().(*net.TCPAddr).AddrPort())))
	lines := bufio.NewScanner(c)
	for {
		s.count.Add(1)
		if _, err := c.Write(answer); err != nil || !lines.Scan() {
			return
		}
	}
}

// receive serves UDP until the socket is closed.
func (s *Server) receive(c *net.UDPConn) {
	buf := make([]byte, 1500)
	for {
		_, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		s.count.Add(1)
		// A client that has gone is no concern of the server.
		_, _ = c.WriteToUDPAddrPort([]byte(line(s.name, plain(from))), from)
	}
}

// Name returns the name that the server gives in its answers.
func (s *Server) Name() string { return s.name }

// Addr returns the address that the server listens on.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Count returns the number of requests answered so far. A request counts
// before its answer leaves.
func (s *Server) Count() int { return int(s.count.Load()) }

// Close closes the socket and all connections and waits for the goroutines of
// the server. It is idempotent. Closing the lab closes its servers.
func (s *Server) Close() error {
	s.namespace.mu.Lock()
	delete(s.namespace.servers, s)
	s.namespace.mu.Unlock()

	s.mu.Lock()
	var err error
	if !s.closed {
		s.closed = true
		err = s.listener.Close()
		for c := range s.conns {
			c.Close()
		}
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}
