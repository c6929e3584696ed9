// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
)

// eachBench reaches an endpoint at its own address, and through the relay.
func eachBench(b *testing.B, k key, endpoint func() netip.AddrPort, f func(b *testing.B, network, addr string)) {
	b.Helper()
	at := endpoint()
	b.Run("direct", func(b *testing.B) { f(b, k.network(), at.String()) })
	b.Run("relay", func(b *testing.B) {
		r, _ := newRelay(b)
		r.Set(svc("web", 0), k.to(at))
		f(b, k.network(), k.addr().String())
	})
}

// BenchmarkThroughput sends over one TCP connection.
func BenchmarkThroughput(b *testing.B) {
	k := ways[0]
	drain := func() netip.AddrPort {
		return serveTCP(b, k, func(c *net.TCPConn) {
			n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
			fmt.Fprint(c, n)
		})
	}
	eachBench(b, k, drain, func(b *testing.B, network, addr string) {
		c, err := net.Dial(network, addr)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		block := make([]byte, 256<<10)
		b.SetBytes(int64(len(block)))
		for b.Loop() {
			if _, err := c.Write(block); err != nil {
				b.Fatal(err)
			}
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			b.Fatal(err)
		}
		// The answer comes when all of it has arrived.
		if _, err := io.ReadAll(c); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkConnect makes a TCP connection, asks, and resets it.
func BenchmarkConnect(b *testing.B) {
	k := ways[0]
	eachBench(b, k, func() netip.AddrPort { return endpoint(b, k, "a") }, func(b *testing.B, network, addr string) {
		question, answer := []byte("?\n"), make([]byte, 2)
		for b.Loop() {
			c, err := net.Dial(network, addr)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.Write(question); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(c, answer); err != nil {
				b.Fatal(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT
			c.Close()
		}
	})
}

// BenchmarkAsk asks again and again, over one TCP connection and in one UDP flow.
func BenchmarkAsk(b *testing.B) {
	for _, k := range []key{ways[0], ways[2]} {
		b.Run(k.network(), func(b *testing.B) {
			eachBench(b, k, func() netip.AddrPort { return endpoint(b, k, "a") }, func(b *testing.B, network, addr string) {
				c, err := net.Dial(network, addr)
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				question, answer := []byte("?\n"), make([]byte, 2)
				for b.Loop() {
					if _, err := c.Write(question); err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(c, answer); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkSet gives a Service other endpoints while there are many node ports.
func BenchmarkSet(b *testing.B) {
	r, _ := newRelay(b)
	at := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:80")}
	for i := range 1000 {
		k := key{ways[0].family, ways[0].protocol, uint16(30000 + i)}
		r.Set(svc(fmt.Sprint(i), 0), k.to(at[0]))
	}
	k := key{ways[0].family, ways[0].protocol, 30500}
	ports := k.to(at[0])
	for i := 0; b.Loop(); i++ {
		ports[0].Endpoints = at[i%2 : i%2+1]
		r.Set(svc("500", 0), ports)
	}
}
