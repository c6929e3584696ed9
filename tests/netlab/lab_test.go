// SPDX-License-Identifier: Apache-2.0

package netlab_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kube-nft/kube-nft/tests/netlab"
)

// routed is a client and a server with a router in between.
type routed struct {
	*netlab.T
	client, router, server *netlab.Namespace
}

var (
	server4 = netip.MustParseAddr("10.0.2.2")
	server6 = netip.MustParseAddr("fd00:2::2")
	client4 = netip.MustParseAddr("10.0.1.2")
	client6 = netip.MustParseAddr("fd00:1::2")
)

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func newRouted(tb testing.TB) routed {
	tb.Helper()
	l := netlab.NewT(tb)
	r := routed{l, l.Namespace("client"), l.Namespace("router"), l.Namespace("server")}
	l.Must(
		netlab.Link(r.client, "eth0", r.router, "left"),
		netlab.Link(r.router, "right", r.server, "eth0"),
		r.client.Addr("eth0", prefixes("10.0.1.2/24", "fd00:1::2/64")...),
		r.router.Addr("left", prefixes("10.0.1.1/24", "fd00:1::1/64")...),
		r.router.Addr("right", prefixes("10.0.2.1/24", "fd00:2::1/64")...),
		r.server.Addr("eth0", prefixes("10.0.2.2/24", "fd00:2::2/64")...),
		r.client.DefaultRoute(netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("fd00:1::1")),
		r.server.DefaultRoute(netip.MustParseAddr("10.0.2.1"), netip.MustParseAddr("fd00:2::1")),
		r.router.Forward(),
	)
	return r
}

// eachWay runs a subtest for each network and family.
func eachWay(t *testing.T, f func(t *testing.T, network string, server, client netip.Addr)) {
	for _, network := range []string{"tcp", "udp", "sctp"} {
		for _, a := range [][2]netip.Addr{{server4, client4}, {server6, client6}} {
			family := "v4"
			if a[0].Is6() {
				family = "v6"
			}
			t.Run(network+family, func(t *testing.T) { f(t, network, a[0], a[1]) })
		}
	}
}

// A lab with a router and twelve pods is built in well under a second.
func TestBuild(t *testing.T) {
	begin := time.Now()
	l := netlab.NewT(t)
	node := l.Namespace("node")
	l.Must(node.Forward())
	for i := range 12 {
		pod := l.Namespace(fmt.Sprintf("pod%d", i))
		host := fmt.Sprintf("veth%d", i)
		l.Must(
			netlab.Link(node, host, pod, "eth0"),
			node.Addr(host, prefixes(fmt.Sprintf("10.1.%d.1/24", i), fmt.Sprintf("fd00:1:%d::1/64", i))...),
			pod.Addr("eth0", prefixes(fmt.Sprintf("10.1.%d.2/24", i), fmt.Sprintf("fd00:1:%d::2/64", i))...),
			pod.DefaultRoute(netip.MustParseAddr(fmt.Sprintf("10.1.%d.1", i)), netip.MustParseAddr(fmt.Sprintf("fd00:1:%d::1", i))),
		)
		dst := netip.MustParseAddrPort(fmt.Sprintf("[fd00:1:%d::2]:80", i))
		l.Serve(pod, "tcp", dst, pod.Name())
		if a := l.Ask(node, "tcp", dst); a.Server != pod.Name() {
			t.Errorf("answer from %s, want %s", a.Server, pod.Name())
		}
	}
	t.Logf("node and 12 pods, each asked once, in %v", time.Since(begin))
}

func TestBridge(t *testing.T) {
	l := netlab.NewT(t)
	sw, a, b := l.Namespace("switch"), l.Namespace("a"), l.Namespace("b")
	l.Must(
		netlab.Link(a, "eth0", sw, "p0"),
		netlab.Link(b, "eth0", sw, "p1"),
		sw.Bridge("br0", "p0", "p1"),
		a.Addr("eth0", prefixes("10.0.0.1/24", "fd00::1/64")...),
		b.Addr("eth0", prefixes("10.0.0.2/24", "fd00::2/64")...),
	)
	for _, dst := range []string{"10.0.0.2:80", "[fd00::2]:80"} {
		l.Serve(b, "udp", netip.MustParseAddrPort(dst), "b")
		l.Ask(a, "udp", netip.MustParseAddrPort(dst))
	}
}

func TestDo(t *testing.T) {
	l := netlab.NewT(t)
	n := l.Namespace("n")
	var st unix.Stat_t
	l.Must(unix.Fstat(n.Fd(), &st))
	want := fmt.Sprintf("net:[%d]", st.Ino)
	where := func() error {
		got, err := os.Readlink("/proc/thread-self/ns/net")
		if err == nil && got != want {
			err = fmt.Errorf("ran in %s, want %s", got, want)
		}
		return err
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if err := n.Do(where); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l.Must(n.Do(func() error { return n.Do(where) }))
	if err := n.Do(func() error { return os.ErrExist }); err != os.ErrExist {
		t.Errorf("Do returned %v", err)
	}
	if where() == nil {
		t.Error("the test itself runs in the namespace")
	}
}

func TestCommand(t *testing.T) {
	r := newRouted(t)
	if out := r.Run(r.client, "ip", "-o", "addr", "show", "dev", "eth0"); !strings.Contains(out, "10.0.1.2/24") {
		t.Errorf("ip addr in client:\n%s", out)
	}
	name := filepath.Base(r.client.Path())
	if out := r.Run(r.router, "ip", "netns", "exec", name, "ip", "-o", "addr"); !strings.Contains(out, "10.0.1.2/24") {
		t.Errorf("ip netns exec %s:\n%s", name, out)
	}
	if _, err := r.client.Run("ip", "link", "show", "dev", "none"); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("run returned %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := r.client.Command(ctx, "sleep", "1000")
	r.Must(cmd.Start())
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", cmd.Process.Pid))
	r.Must(err)
	var st unix.Stat_t
	r.Must(unix.Stat(r.client.Path(), &st))
	if want := fmt.Sprintf("net:[%d]", st.Ino); link != want {
		t.Errorf("process runs in %s, want %s", link, want)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("sleep was not killed")
	}
}

func TestNFT(t *testing.T) {
	l := netlab.NewT(t)
	n := l.Namespace("n")
	l.Must(n.NFT(`table inet t { chain c { type filter hook input priority 0
}
}`))
	out, err := n.Ruleset()
	l.Must(err)
	if !strings.Contains(out, "hook input") {
		t.Errorf("ruleset:\n%s", out)
	}
	if err := n.NFT("table inet t { nonsense }"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("nft returned %v", err)
	}
}

// footprint is what a lab could leave behind.
type footprint struct {
	goroutines, fds int
	names, foreign  []string
}

func takeFootprint(t *testing.T) footprint {
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	f := footprint{goroutines: runtime.NumGoroutine()}
	fds, _ := filepath.Glob("/proc/self/fd/*")
	f.fds = len(fds)
	f.names, _ = filepath.Glob("/run/netns/*")
	threads, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, path := range threads {
		if link, err := os.Readlink(path); err == nil && link != own {
			f.foreign = append(f.foreign, path)
		}
	}
	return f
}

func TestCloseLeavesNothing(t *testing.T) {
	use := func(t *testing.T) {
		r := newRouted(t)
		eachWay(t, func(t *testing.T, network string, server, _ netip.Addr) {
			dst := netip.AddrPortFrom(server, 80)
			r.Serve(r.server, network, dst, "one")
			c, err := r.client.Dial(t.Context(), network, dst)
			r.Must(err)
			defer c.Close()
			_, err = c.Ask(t.Context())
			r.Must(err)
			_, err = r.client.Ask(t.Context(), network, netip.AddrPortFrom(server, 81), netlab.Timeout(10*time.Millisecond))
			if err == nil {
				t.Error("answer from a port without server")
			}
		})
		cmd := r.client.Command(context.Background(), "sleep", "1000")
		r.Must(cmd.Start())
		r.Must(r.Close(), r.Close())
		if err := cmd.Wait(); err == nil {
			t.Error("process outlived its namespace")
		}
		if _, err := r.client.Ask(t.Context(), "tcp", netip.AddrPortFrom(server4, 80)); !errors.Is(err, netlab.ErrClosed) {
			t.Errorf("ask in a closed namespace: %v", err)
		}
		if _, err := r.Lab.Namespace("late"); !errors.Is(err, netlab.ErrClosed) {
			t.Errorf("namespace in a closed lab: %v", err)
		}
	}
	t.Run("warm up", use) // the runtime keeps a few descriptors of its own
	before := takeFootprint(t)
	for range 5 {
		t.Run("use", use)
	}
	err := netlab.Poll(5*time.Second, func() error {
		after := takeFootprint(t)
		if after.goroutines > before.goroutines || after.fds > before.fds || len(after.names)+len(after.foreign) > 0 {
			return fmt.Errorf("left behind: %+v, before %+v", after, before)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSameNames(t *testing.T) {
	a, b := newRouted(t), newRouted(t)
	for _, r := range []routed{a, b} {
		r.Serve(r.server, "tcp", netip.AddrPortFrom(server4, 80), filepath.Base(r.server.Path()))
		if got, want := r.Ask(r.client, "tcp", netip.AddrPortFrom(server4, 80)).Server, filepath.Base(r.server.Path()); got != want {
			t.Errorf("answer from %s, want %s", got, want)
		}
	}
	if _, err := a.Lab.Namespace("client"); err == nil {
		t.Error("the same name twice in a lab")
	}
}

func TestServeRefusals(t *testing.T) {
	l := netlab.NewT(t)
	n := l.Namespace("n")
	for _, tt := range []struct{ name, network, addr, server string }{
		{"name", "tcp", "127.0.0.1:80", "two words"},
		{"network", "dccp", "127.0.0.1:80", "one"},
		{"unspecified", "udp", "0.0.0.0:80", "one"},
		{"not local", "tcp", "192.0.2.1:80", "one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := n.Serve(tt.network, netip.MustParseAddrPort(tt.addr), tt.server); err == nil {
				t.Error("served")
			}
		})
	}
	if _, err := n.Ask(t.Context(), "dccp", netip.MustParseAddrPort("127.0.0.1:80")); !errors.As(err, new(net.UnknownNetworkError)) {
		t.Errorf("ask dccp: %v", err)
	}
}
