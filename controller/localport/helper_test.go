// SPDX-License-Identifier: Apache-2.0

package localport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kube-nft/kube-nft/controller/model"
	"github.com/kube-nft/kube-nft/tests/netlab"
)

// The tests have a network namespace of their own, and with it all ports.
func TestMain(m *testing.M) { netlab.Main(m) }

func newRelay(t testing.TB) (*Relay, *netlab.Output) {
	t.Helper()
	log := new(netlab.Output)
	r := New(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() {
		r.Close()
		if n := r.flows.Load(); n != 0 {
			t.Errorf("%d flows are left after Close", n)
		}
	})
	return r, log
}

// svc is a Service by its name; created orders it among others.
func svc(name string, created int64) *model.Service {
	return &model.Service{Name: types.NamespacedName{Namespace: "default", Name: name}, Created: created}
}

// ways are the networks and families that are served.
var ways = []key{
	{model.IPv4, model.TCP, 30080},
	{model.IPv6, model.TCP, 30080},
	{model.IPv4, model.UDP, 30080},
	{model.IPv6, model.UDP, 30080},
}

func eachWay(t *testing.T, f func(t *testing.T, k key)) {
	for _, k := range ways {
		t.Run(k.network(), func(t *testing.T) { f(t, k) })
	}
}

// to is a key's node port with endpoints.
func (k key) to(endpoints ...netip.AddrPort) []model.NodePort {
	slices.SortFunc(endpoints, netip.AddrPort.Compare)
	return []model.NodePort{{Family: k.family, Protocol: k.protocol, Number: k.number, Endpoints: endpoints}}
}

// endpoint starts a server that answers each line or datagram with its name, and
// returns its address.
func endpoint(t testing.TB, k key, name string) netip.AddrPort {
	t.Helper()
	at := netip.AddrPortFrom(loopback[k.family], 0)
	if k.protocol == model.UDP {
		c, err := net.ListenUDP(k.network(), net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 65536)
			for {
				_, from, err := c.ReadFromUDPAddrPort(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				_, _ = c.WriteToUDPAddrPort([]byte(name+"\n"), from)
			}
		}()
		return c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	return serveTCP(t, k, func(c *net.TCPConn) {
		for lines := bufio.NewScanner(c); lines.Scan(); {
			fmt.Fprintln(c, name)
		}
	})
}

// serveTCP serves each connection by a function, and closes it then.
func serveTCP(t testing.TB, k key, serve func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP(k.network(), net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback[k.family], 0)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// client is a connection to a node port.
type client struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t testing.TB, k key) *client {
	t.Helper()
	c, err := net.Dial(k.network(), k.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, bufio.NewReader(c)}
}

// ask returns the name of who answers.
func (c *client) ask() (string, error) {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c, "?"); err != nil {
		return "", err
	}
	name, err := c.lines.ReadString('\n')
	return strings.TrimSpace(name), err
}

// answers checks who answers on a connection.
func (c *client) answers(t *testing.T, want string) {
	t.Helper()
	if got, err := c.ask(); got != want || err != nil {
		t.Errorf("answered %q, %v, want %s", got, err, want)
	}
}

// answered checks who answers a new client.
func answered(t *testing.T, k key, want string) {
	t.Helper()
	dial(t, k).answers(t, want)
}

// refused checks that nobody listens.
func refused(t *testing.T, k key) {
	t.Helper()
	c, err := net.Dial(k.network(), k.addr().String())
	if err == nil {
		defer c.Close()
		_, err = (&client{c, bufio.NewReader(c)}).ask()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: %v, want a refusal", k, err)
	}
}

// broken checks that a TCP connection was reset.
func (c *client) broken(t *testing.T) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %v, want a reset", err)
	}
}

// breaks checks that a new TCP connection is reset; that may be before the client
// takes it for one.
func breaks(t *testing.T, k key) {
	t.Helper()
	c, err := net.Dial(k.network(), k.addr().String())
	if err == nil {
		defer c.Close()
		(&client{Conn: c}).broken(t)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("connect: %v, want a reset", err)
	}
}

// eventually polls until there is no error.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	if err := netlab.Poll(5*time.Second, f); err != nil {
		t.Error(err)
	}
}
