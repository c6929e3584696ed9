// SPDX-License-Identifier: Apache-2.0

package packet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/compare/result"
)

const (
	bulkTime = time.Second
	bulkSize = 256 << 10 // of one write
	turns    = 5000      // questions of one round
)

// measureFlows measures established connections by each proxy, and to an endpoint
// without any. Pods must hear again for that: it is the last of all.
func (g *ground) measureFlows(ctx context.Context, f *result.File, row result.Row, rounds int) (err error) {
	var lanes []*place
	for _, p := range append([]*place{g.none}, g.peers...) {
		if err := p.hear(); err != nil {
			return err
		}
		stop, err := p.serveFlows()
		if err != nil {
			return err
		}
		defer stop()
		lanes = append(lanes, p)
	}
	got := make([]established, len(lanes))
	for range rounds {
		for i, p := range lanes {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := got[i].round(ctx, p); err != nil {
				return fmt.Errorf("established connections by %s: %w", p.name, err)
			}
		}
	}
	for i, p := range lanes {
		got[i].rows(f, row, p.name, got[0])
	}
	for i, p := range lanes { // medians sort what they are taken of
		g.log.Info("established", "shape", g.shape.Name, "proxy", p.name,
			"GB/s", fmt.Sprintf("%.2f", median(got[i].bulk)/1e9), "ns", int(1e9*median(got[i].medians)))
	}
	return nil
}

// established is what was measured of established connections at one place.
type established struct {
	bulk    []float64 // bytes a second, of each round
	trips   []float64 // s, of all rounds
	medians []float64 // s, of the trips of each round
}

func (e *established) round(ctx context.Context, p *place) error {
	bulk, err := p.bulk(ctx)
	if err != nil {
		return err
	}
	trips, err := p.pingPong(ctx)
	if err != nil {
		return err
	}
	e.bulk = append(e.bulk, bulk)
	e.trips = append(e.trips, trips...)
	e.medians = append(e.medians, median(trips))
	return nil
}

// rows adds the figures to a file; none are those without translation.
func (e *established) rows(f *result.File, row result.Row, proxy string, none established) {
	row.Section = "flow"
	add := func(metric, unit, note string, samples []float64) {
		row.Proxy, row.Metric, row.Unit, row.Note = proxy, metric, unit, note
		f.Add(row, samples...)
	}
	ratios := make([]float64, len(e.medians))
	for i, m := range e.medians {
		ratios[i] = m / none.medians[i]
	}
	add("throughput", "B/s", "one TCP connection", e.bulk)
	add("latency", "s", "question and answer of one byte over one TCP connection, both ends on one CPU", e.trips)
	add("latency", "ratio", "medians of rounds beside those without translation", ratios)
}

// flowTarget is where a place's flows go: to the endpoint itself if nobody translates.
func (p *place) flowTarget(port uint16) string {
	addr := flowIP
	if p.name == proxyNone {
		addr = flowEndpoint
	}
	return netip.AddrPortFrom(addr, port).String()
}

// dial connects from the client, under an address that nobody masquerades.
func (p *place) dial(ctx context.Context, port uint16) (c *net.TCPConn, err error) {
	err = p.node.Client.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(p.node.Inside, 0))}
		conn, err := d.DialContext(ctx, "tcp4", p.flowTarget(port))
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// bulk sends as much as it can for a while, and returns how many bytes a second arrived.
func (p *place) bulk(ctx context.Context) (float64, error) {
	c, err := p.dial(ctx, sinkPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	buf := make([]byte, bulkSize)
	sent, began := 0, time.Now()
	for time.Since(began) < bulkTime {
		n, err := c.Write(buf)
		if err != nil {
			return 0, err
		}
		sent += n
	}
	// The sink closes once it has seen the end.
	if err := c.CloseWrite(); err != nil {
		return 0, err
	}
	if _, err := c.Read(buf); !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("the sink did not end: %w", err)
	}
	return float64(sent) / time.Since(began).Seconds(), nil
}

// pingPong asks over one connection, and returns how long each answer took, in s.
func (p *place) pingPong(ctx context.Context) (took []float64, err error) {
	c, err := p.dial(ctx, echoPort)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	fd, release, err := blocking(c)
	if err != nil {
		return nil, err
	}
	defer release()
	err = onOneCPU(func() error {
		b := []byte{1}
		for i := range turns + turns/10 {
			began := time.Now()
			if _, err := unix.Write(fd, b); err != nil {
				return err
			}
			if n, err := unix.Read(fd, b); err != nil || n != 1 {
				return fmt.Errorf("read %d bytes: %w", n, err)
			}
			if i >= turns/10 { // warm
				took = append(took, time.Since(began).Seconds())
			}
		}
		return nil
	})
	return took, err
}

// blocking returns a descriptor of a connection whose reads block the thread, which is
// nearer to the kernel than Go's poller.
func blocking(c *net.TCPConn) (fd int, release func(), err error) {
	f, err := c.File()
	if err != nil {
		return 0, nil, err
	}
	fd = int(f.Fd()) // makes it blocking
	return fd, func() { _ = f.Close() }, nil
}

// serveFlows starts what swallows and what answers in the pods.
func (p *place) serveFlows() (stop func(), err error) {
	var listeners []net.Listener
	stop = func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}
	for port, serve := range map[int]func(*net.TCPConn){sinkPort: swallow, echoPort: answer} {
		var l net.Listener
		err := p.node.Pods.Do(func() (err error) {
			l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp4", fmt.Sprintf(":%d", port))
			return err
		})
		if err != nil {
			stop()
			return nil, err
		}
		listeners = append(listeners, l)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go serve(c.(*net.TCPConn))
			}
		}()
	}
	return stop, nil
}

func swallow(c *net.TCPConn) {
	defer c.Close()
	buf := make([]byte, bulkSize)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
	}
}

func answer(c *net.TCPConn) {
	defer c.Close()
	fd, release, err := blocking(c)
	if err != nil {
		return
	}
	defer release()
	_ = onOneCPU(func() error {
		b := make([]byte, 1)
		for {
			if n, err := unix.Read(fd, b); err != nil || n == 0 {
				return err
			}
			if _, err := unix.Write(fd, b); err != nil {
				return err
			}
		}
	})
}
