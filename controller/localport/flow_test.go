// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/kube-nft/kube-nft/controller/model"
)

func eachTCP(t *testing.T, f func(t *testing.T, k key)) {
	for _, k := range ways[:2] {
		t.Run(k.network(), func(t *testing.T) { f(t, k) })
	}
}

// TestHalfClose: each side's end is passed on, and the other direction goes on.
func TestHalfClose(t *testing.T) {
	eachTCP(t, func(t *testing.T, k key) {
		r, _ := newRelay(t)
		question := bytes.Repeat([]byte("?"), 1<<20)
		r.Set(svc("web", 0), k.to(serveTCP(t, k, func(c *net.TCPConn) {
			all, err := io.ReadAll(c)
			fmt.Fprintf(c, "%d, %v", len(all), err)
		})))
		c := dial(t, k).Conn.(*net.TCPConn)
		if _, err := c.Write(question); err != nil {
			t.Fatal(err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if want := fmt.Sprintf("%d, <nil>", len(question)); string(got) != want || err != nil {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
		released(t, r)
	})
}

// TestServerEnds: the endpoint ends its direction first.
func TestServerEnds(t *testing.T) {
	eachTCP(t, func(t *testing.T, k key) {
		r, _ := newRelay(t)
		rest := make(chan string, 1)
		r.Set(svc("web", 0), k.to(serveTCP(t, k, func(c *net.TCPConn) {
			fmt.Fprint(c, "bye")
			_ = c.CloseWrite()
			all, err := io.ReadAll(c)
			rest <- fmt.Sprint(string(all), err)
		})))
		c := dial(t, k)
		if got, err := io.ReadAll(c); string(got) != "bye" || err != nil {
			t.Errorf("read %q, %v, want bye", got, err)
		}
		fmt.Fprint(c, "thanks")
		c.Close()
		if got := <-rest; got != "thanks<nil>" {
			t.Errorf("the endpoint read %q, want thanks", got)
		}
		released(t, r)
	})
}

// TestReset: a reset of either side is one for the other, and an endpoint that
// refuses is a reset for the client.
func TestReset(t *testing.T) {
	eachTCP(t, func(t *testing.T, k key) {
		r, _ := newRelay(t)
		r.Set(svc("web", 0), k.to(serveTCP(t, k, func(c *net.TCPConn) { _ = c.SetLinger(0) })))
		breaks(t, k)

		ended := make(chan error, 1)
		r.Set(svc("web", 0), k.to(serveTCP(t, k, func(c *net.TCPConn) {
			fmt.Fprintln(c, "a")
			_, err := io.ReadAll(c)
			ended <- err
		})))
		c := dial(t, k)
		c.answers(t, "a")
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
		if err := <-ended; !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the endpoint read %v, want a reset", err)
		}

		nobody := key{k.family, model.TCP, 9}.addr()
		r.Set(svc("web", 0), k.to(nobody))
		breaks(t, k)
		released(t, r)
	})
}

// released checks that no flow is left.
func released(t *testing.T, r *Relay) {
	t.Helper()
	eventually(t, func() error {
		if n := r.flows.Load(); n != 0 {
			return fmt.Errorf("%d flows are left", n)
		}
		return nil
	})
}

// TestLimit: too many flows are refused, and it is said once.
func TestLimit(t *testing.T) {
	eachWay(t, func(t *testing.T, k key) {
		r, log := newRelay(t)
		r.limit = 2
		r.Set(svc("web", 0), k.to(endpoint(t, k, "a")))
		var open []*client
		for range 2 {
			c := dial(t, k)
			c.answers(t, "a")
			open = append(open, c)
		}
		for range 3 {
			if k.protocol == model.TCP {
				breaks(t, k)
			} else {
				fmt.Fprintln(dial(t, k), "?") // lost
			}
		}
		open[0].answers(t, "a")
		eventually(t, func() error {
			if n := log.Count("level=WARN", "limit=2", k.String()); n != 1 {
				return fmt.Errorf("said %d times, want once", n)
			}
			return nil
		})
		if k.protocol == model.TCP {
			open[0].Close()
			eventually(t, func() error {
				c := dial(t, k)
				defer c.Close()
				_, err := c.ask()
				return err
			})
		}
	})
}

// TestIdle: UDP flows end when nothing is said, later if there was more than a
// question and an answer.
func TestIdle(t *testing.T) {
	for _, k := range ways[2:] {
		t.Run(k.network(), func(t *testing.T) {
			r, _ := newRelay(t)
			r.idle, r.idleStream = 300*time.Millisecond, time.Hour
			r.Set(svc("web", 0), k.to(endpoint(t, k, "a")))
			flows := func() map[netip.AddrPort]*flow { return r.ports[k].listener.(*udpListener).flows }
			long, brief := dial(t, k), dial(t, k)
			at := long.LocalAddr().(*net.UDPAddr).AddrPort()
			eventually(t, func() error { // twice before the flow ends
				long.answers(t, "a")
				r.mu.Lock()
				defer r.mu.Unlock()
				if f := flows()[at]; f == nil || !f.stream.Load() {
					return errors.New("not more than a question and an answer")
				}
				return nil
			})
			brief.answers(t, "a")
			eventually(t, func() error {
				if n := r.flows.Load(); n != 1 {
					return fmt.Errorf("%d flows, want one", n)
				}
				return nil
			})
			r.mu.Lock()
			if rest := flows(); len(rest) != 1 || rest[at] == nil {
				t.Errorf("%v are left, want the flow of %s", rest, at)
			}
			r.mu.Unlock()
			brief.answers(t, "a") // another flow
		})
	}
}

// TestDatagrams: the largest datagram and an empty one arrive as they are, from
// many clients at a time, each with its own flow.
func TestDatagrams(t *testing.T) {
	for _, k := range ways[2:] {
		t.Run(k.network(), func(t *testing.T) {
			r, _ := newRelay(t)
			echo, err := net.ListenUDP(k.network(), net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback[k.family], 0)))
			if err != nil {
				t.Fatal(err)
			}
			defer echo.Close()
			go func() {
				b := make([]byte, 65536)
				for {
					n, from, err := echo.ReadFromUDPAddrPort(b)
					if err != nil {
						return
					}
					_, _ = echo.WriteToUDPAddrPort(b[:n], from)
				}
			}()
			r.Set(svc("web", 0), k.to(echo.LocalAddr().(*net.UDPAddr).AddrPort()))
			b := make([]byte, 65536)
			for client := range 20 {
				c := dial(t, k)
				for _, size := range []int{0, 1, 1472, 65507} {
					sent := bytes.Repeat([]byte{byte(client)}, size)
					_ = c.SetDeadline(time.Now().Add(5 * time.Second))
					if _, err := c.Write(sent); err != nil {
						t.Fatal(err)
					}
					if n, err := c.Conn.Read(b); err != nil || !bytes.Equal(b[:n], sent) {
						t.Fatalf("%d bytes came back of %d, %v", n, size, err)
					}
				}
			}
			if n := r.flows.Load(); n != 20 {
				t.Errorf("%d flows of 20 clients", n)
			}
		})
	}
}

// TestEndpointRefuses: a UDP flow to an endpoint that refuses ends, so that the
// client finds another.
func TestEndpointRefuses(t *testing.T) {
	for _, k := range ways[2:] {
		t.Run(k.network(), func(t *testing.T) {
			r, _ := newRelay(t)
			a, nobody := endpoint(t, k, "a"), key{k.family, model.UDP, 9}.addr()
			r.Set(svc("web", 0), k.to(a, nobody))
			c := dial(t, k)
			eventually(t, func() error {
				_ = c.SetDeadline(time.Now().Add(100 * time.Millisecond))
				fmt.Fprintln(c, "?")
				_, err := c.lines.ReadString('\n')
				return err
			})
		})
	}
}
